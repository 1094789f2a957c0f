"""Two parts of a data set by a seed, each of which shows every class."""

import hashlib
from collections import Counter
from collections.abc import Sequence


def split_images(
    names: Sequence[str], labels: Sequence[frozenset[str]], fraction: float, seed: int
) -> tuple[list[int], set[str]]:
    """Choose the images to validate on.

    Images are ordered by a hash of seed and file name, and the first of them are taken: the choice depends
    on neither the order of the list nor the machine. Then images change sides until each class is shown by
    both parts, so that the part may be somewhat larger or smaller than asked for.

    Args:
        names: file names of M images.
        labels: the classes that each shows.
        fraction: of the images, from 0 to below 1; 0 chooses none.
        seed: of the choice.

    Returns:
        the chosen images, rising; and the classes that could not be in both parts, as those of one image.

    Raises:
        ValueError: the fraction is out of range.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f'fraction must be from 0 to below 1, but is {fraction}.')
    if fraction == 0 or not names:
        return [], set()
    order = sorted(range(len(names)), key=lambda row: (_chance(seed, names[row]), names[row]))
    parts = _Parts(labels, order, max(1, round(fraction * len(names))))
    rarest_first = sorted(parts.members, key=lambda label: (len(parts.members[label]), label))
    shown = {label: [parts.show(label, part) for part in (True, False)] for label in rarest_first}
    return sorted(parts.chosen), {label for label, sides in shown.items() if not all(sides)}


class _Parts:
    """Which images are chosen, and how many of either part show each class."""

    def __init__(self, labels: Sequence[frozenset[str]], order: Sequence[int], count: int) -> None:
        self.labels = labels
        self.chosen = set(order[:count])
        self.shown: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        self.members: dict[str, list[int]] = {}
        for row in order:
            self.shown[row in self.chosen].update(labels[row])
            for label in labels[row]:
                self.members.setdefault(label, []).append(row)

    def show(self, label: str, part: bool) -> bool:
        """See that a part shows a class, by one image of the other if need be; tells whether it does."""
        if self.shown[part][label]:
            return True
        other = self.shown[not part]
        for row in self.members[label]:
            if all(other[one] > 1 for one in self.labels[row]):
                self.chosen.symmetric_difference_update({row})
                other.subtract(self.labels[row])
                self.shown[part].update(self.labels[row])
                return True
        return False


def _chance(seed: int, name: str) -> bytes:
    return hashlib.sha256(f'{seed}/{name}'.encode('utf-8', 'surrogatepass')).digest()
