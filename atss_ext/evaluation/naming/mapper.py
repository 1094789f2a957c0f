"""Free names to categories: by words, by synonyms, by a text encoder."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.naming.cache import CachedEncoder
from atss_ext.evaluation.naming.categories import NameIndex, plain, readable
from atss_ext.evaluation.naming.encoder import TextEncoder
from atss_ext.registry import TASK_UTILS

How = Literal['exact', 'synonym', 'encoder', 'none']
# Names whose similarities to all categories are in memory together.
_AT_ONCE = 1024
# What is nearer than that is the same: the rounding of an encoder depends on what else is in its batch.
_DECIMALS = 6


class NameMatch(NamedTuple):
    """What a name was brought to.

    Attributes:
        labels: places of categories, best first; none where nothing fits.
        weights: what a detection's score is multiplied by, one a label.
        how: 'exact', 'synonym', 'encoder' or 'none'.
    """

    labels: tuple[int, ...]
    weights: tuple[float, ...]
    how: How


class CategoryMapper:
    """Brings free names to categories.

    A name that is a category's is that one, whatever its case, underscores, article, number, and whether it
    has the category's parentheses; so is one of its synonyms. Where several fit ('bow' of LVIS), the encoder
    chooses among them. Any other name goes to the category of the largest cosine; of equal ones (to six
    decimals) to the first.

    Args:
        categories: C names.
        synonyms: of each; None where there are none.
        encoder: a :class:`~.encoder.TextEncoder`, its config, or None: then other names stay unmapped.
        top_k: categories a name is brought to. With more than one, as GenerateU (Lin et al., CVPR 2024)
            scores LVIS with 15, a detection becomes ``top_k`` of them.
        threshold: cosine below which the encoder's answer does not count; None takes all.
        temperature: of the weights, softmax(temperature * cosine) over all categories; a match by words has
            the cosine 1. Weights are those where ``top_k`` is more than one, and else 1.
        lexical: False leaves everything to the encoder, which is GenerateU's protocol to the letter.
        encode: whether a category's cosine is that of its 'names', or the largest of name and 'synonyms'.
        cache_dir: folder that keeps embeddings, see :class:`~.cache.CachedEncoder`.

    Raises:
        ValueError: an argument out of its range, or no encoder where it is needed.
    """

    def __init__(
        self,
        categories: Sequence[str],
        synonyms: Sequence[Sequence[str]] | None = None,
        encoder: TextEncoder | Mapping[str, Any] | None = None,
        top_k: int = 1,
        threshold: float | None = None,
        temperature: float = 100.0,
        lexical: bool = True,
        encode: Literal['names', 'synonyms'] = 'names',
        cache_dir: str | Path | None = None,
    ) -> None:
        self.categories = tuple(categories)
        others = [()] * len(self.categories) if synonyms is None else synonyms
        _check(self.categories, others, encoder, top_k, temperature, lexical, encode)
        if threshold is not None and not -1 <= threshold <= 1:
            raise ValueError(f'threshold must be a cosine, in -1 to 1, but is {threshold}.')
        self.top_k, self.threshold, self.temperature = top_k, threshold, temperature
        built = TASK_UTILS.build(dict(encoder)) if isinstance(encoder, Mapping) else encoder
        self.encoder = None if built is None else CachedEncoder(built, cache_dir)
        named = [[name] for name in self.categories]
        indices: list[tuple[How, NameIndex]] = [
            ('exact', NameIndex(named)),
            ('synonym', NameIndex(others)),
        ]
        self._indices = indices if lexical else []
        known = [[name, *more] for name, more in zip(self.categories, others, strict=True)]
        texts = known if encode == 'synonyms' else named
        self._texts = [readable(text) for group in texts for text in group]
        self._starts = np.cumsum([0, *(len(group) for group in texts)])[:-1]
        self._directions: NDArray[np.float64] | None = None  # [texts, D]
        self._matches: dict[str, NameMatch] = {}

    def map(self, names: Sequence[str]) -> list[NameMatch]:
        """Bring N names to categories; one that came before costs nothing.

        Raises:
            DataError: the encoder's embeddings are not finite.
            VlsamError: the encoder cannot be loaded.
        """
        new = [name for name in dict.fromkeys(names) if name not in self._matches]
        found = {name: self._by_words(name) for name in new}
        asked = [name for name, (how, places) in found.items() if self._asks(name, how, places)]
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            for name, row in zip(part, self.similarities(part), strict=True):
                self._matches[name] = self._nearest(row, *found[name])
        for name, (how, places) in found.items():
            if name not in self._matches:
                self._matches[name] = NameMatch(tuple(places[:1]), (1.0,) * len(places[:1]), how)
        return [self._matches[name] for name in names]

    def similarities(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Cosines of N names and the C categories, [N, C], rounded to six decimals.

        Raises:
            ValueError: there is no encoder.
        """
        if self._directions is None:
            self._directions = self._encode(self._texts)
        cosines = self._encode([readable(name) for name in names]) @ self._directions.T
        best: NDArray[np.float64] = np.maximum.reduceat(cosines, self._starts, axis=1)
        return np.round(best, _DECIMALS)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        if self.encoder is None:
            raise ValueError('similarities need an encoder; give CategoryMapper one.')
        found = self.encoder.encode(texts).numpy().astype(np.float64)
        if not np.isfinite(found).all():
            raise DataError(f'the encoder {self.encoder.key} gives embeddings that are not finite')
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, lengths, out=found, where=lengths > 0)

    def _by_words(self, name: str) -> tuple[How, list[int]]:
        for how, index in self._indices:
            places = index.find(name)
            if places:
                return how, places
        return 'none', []

    def _asks(self, name: str, how: How, places: list[int]) -> bool:
        """Whether the encoder has anything to say of a name."""
        if self.encoder is None or not plain(name):
            return False
        return how == 'none' or len(places) > 1 or self.top_k > 1

    def _nearest(self, row: NDArray[np.float64], how: How, places: list[int]) -> NameMatch:
        """The best categories of a name, by its cosines [C] and the categories its words fit."""
        if places:
            chosen = max(places, key=lambda place: (row[place], -place))
            row = row.copy()
            row[chosen] = 1.0
            order = np.argsort(-row, kind='stable')
            order = np.array([chosen, *order[order != chosen]])[: self.top_k]
        else:
            how = 'encoder'
            order = np.argsort(-row, kind='stable')[: self.top_k]
        if self.threshold is not None:
            order = order[row[order] >= self.threshold]
        if not order.size:
            return NameMatch((), (), 'none')
        weights = np.ones(len(row))
        if self.top_k > 1:
            powers = np.exp(self.temperature * (row - row.max()))
            weights = powers / powers.sum()
        return NameMatch(tuple(order.tolist()), tuple(weights[order].tolist()), how)


def _check(
    categories: Sequence[str],
    synonyms: Sequence[Sequence[str]],
    encoder: Any,
    top_k: int,
    temperature: float,
    lexical: bool,
    encode: str,
) -> None:
    if not categories:
        raise ValueError('categories must hold a name at least, but is empty.')
    if len(synonyms) != len(categories):
        raise ValueError(f'synonyms must be {len(categories)} lists, one a category, but is {len(synonyms)}.')
    if not 1 <= top_k <= len(categories):
        raise ValueError(f'top_k must be in 1 to {len(categories)} (the categories), but is {top_k}.')
    if not 0 < temperature < math.inf:
        raise ValueError(f'temperature must be above 0, but is {temperature}.')
    if encode not in ('names', 'synonyms'):
        raise ValueError(f"encode must be 'names' or 'synonyms', but is {encode!r}.")
    if encoder is None and (top_k > 1 or not lexical):
        raise ValueError("top_k above 1 and lexical=False need an encoder, such as dict(type='ClipEncoder').")
