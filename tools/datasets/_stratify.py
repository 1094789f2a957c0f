"""Chooses images so that every category keeps its share: iterative stratification.

Source: Sechidis, Tsoumakas, Vlahavas, *On the Stratification of Multi-label Data* (ECML PKDD 2011),
algorithm 1, for two parts: what is taken and what is left. An image shows a set of categories; the category
of which the fewest images are unassigned comes first, because later there would be no choice left for it.

One thing differs. What a part wants of a category is a fraction in the paper, so that of two unequal parts
the larger gets every category of a single image: a tenth of LVIS would have none of its rarest. Here the
fraction is rounded to a whole number at random, up as often as it is large, and rare categories together
keep their share.
"""

import heapq
import math
import random
from collections import Counter
from collections.abc import Sequence

TAKEN, LEFT = 0, 1
_TRIED = 50  # images that are tried in an exchange, the most helpful first


def stratify(labels: Sequence[frozenset[int]], count: int, seed: int, minimum: int = 0) -> list[int]:
    """Choose ``count`` images.

    Args:
        labels: the categories of each of M images.
        count: images to take, 0..M.
        seed: of the order in which images are looked at, and of ties.
        minimum: images that a category should get at least, as far as it has them; rare ones then get more
            than their share.

    Returns:
        the chosen images' indices, rising, exactly ``count``. The algorithm of the paper only aims at the
        size; here a full part takes no more.
    """
    chance = random.Random(seed)
    order = list(range(len(labels)))
    chance.shuffle(order)
    members: dict[int, list[int]] = {}
    for index in order:
        for label in sorted(labels[index]):
            members.setdefault(label, []).append(index)
    parts = _Parts(labels, count, members, chance, minimum)
    remaining = {label: len(images) for label, images in members.items()}
    unassigned = set(order)
    while remaining:
        rarest = min(remaining, key=lambda label: (remaining[label], label))
        for index in members[rarest]:
            if index in unassigned:
                unassigned.remove(index)
                parts.assign(index, rarest)
                for label in labels[index]:
                    if label in remaining:
                        remaining[label] -= 1
        del remaining[rarest]
    for index in order:
        if index in unassigned:  # shows nothing
            parts.assign(index, None)
    return sorted(_repair(labels, parts.taken, members, minimum))


def _repair(
    labels: Sequence[frozenset[int]], taken: list[int], members: dict[int, list[int]], minimum: int
) -> set[int]:
    """Exchange images until every category has its minimum, or none of the most promising helps.

    The algorithm of the paper settles images by their rarest category, and so may spend all images of a less
    rare one on the other part. Every exchange lowers the number of images that categories lack.
    """
    chosen = set(taken)
    have = Counter(label for index in taken for label in labels[index])
    need = {label: min(minimum, len(images)) for label, images in members.items()}
    while exchange := _best_exchange(labels, chosen, members, have, need):
        out, into = exchange
        chosen.remove(out)
        chosen.add(into)
        have.subtract(labels[out])
        have.update(labels[into])
    return chosen


def _best_exchange(
    labels: Sequence[frozenset[int]],
    chosen: set[int],
    members: dict[int, list[int]],
    have: Counter[int],
    need: dict[int, int],
) -> tuple[int, int] | None:
    """An image to give up and one to take; None where no exchange with a promising one helps."""
    short = {label for label in need if have[label] < need[label]}
    gains = Counter(index for label in short for index in members[label] if index not in chosen)
    bound = {label for label in need if have[label] <= need[label]}  # what cannot spare an image
    for into in heapq.nsmallest(_TRIED, gains, key=lambda index: (-gains[index], index)):

        def net(out: int, into: int = into) -> tuple[int, int, int]:
            lost, won = labels[out] - labels[into], labels[into] - labels[out]
            spare = sum(have[label] - need[label] for label in lost)
            return len(won & short) - len(lost & bound), spare, -out

        out = max(chosen, key=net, default=None)
        if out is not None and net(out)[0] > 0:
            return out, into
    return None


class _Parts:
    """What the two parts still want: images in all, and images of each category."""

    def __init__(
        self,
        labels: Sequence[frozenset[int]],
        count: int,
        members: dict[int, list[int]],
        chance: random.Random,
        minimum: int,
    ) -> None:
        share = count / len(labels) if labels else 0.0
        self.labels, self.chance = labels, chance
        self.room = [count, len(labels) - count]
        self.taken: list[int] = []
        self.wanted: dict[int, list[int]] = {}
        for label, images in members.items():
            whole = math.floor(share * len(images))
            take = max(whole + (chance.random() < share * len(images) - whole), min(minimum, len(images)))
            self.wanted[label] = [take, len(images) - take]

    def assign(self, index: int, label: int | None) -> None:
        """Put an image where its rarest category is wanted most, then where images are wanted most."""
        open_parts = [part for part in (TAKEN, LEFT) if self.room[part] > 0]
        wishes = self.wanted[label] if label is not None else [0, 0]
        keys = [(wishes[part], self.room[part]) for part in open_parts]
        best = [part for part, key in zip(open_parts, keys, strict=True) if key == max(keys)]
        part = best[0] if len(best) == 1 else self.chance.choice(best)
        self.room[part] -= 1
        for other in self.labels[index]:
            self.wanted[other][part] -= 1
        if part == TAKEN:
            self.taken.append(index)
