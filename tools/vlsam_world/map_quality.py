"""How well an attention map points at its object."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A cell is the object's from the first share on (and its best cell is anyway), beside it below the second;
# between them it counts as neither.
_OWN, _BESIDE = 0.5, 0.15


class Quality(NamedTuple):
    """Of one map.

    Attributes:
        hit: the centre of the highest cell lies on the object: a point prompt there would be right.
        touch: the highest cell shows a part of the object at least.
        auc: share of pairs of a cell of the object and one beside it in which the former is higher; equal
            ones count half. 0.5 is chance.
    """

    hit: float
    touch: float
    auc: float


def map_quality(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> Quality:
    """Judge one map.

    Args:
        values: [R, C].
        mask: bool [H, W], the object's visible pixels; R divides H and C divides W.

    Raises:
        ValueError: the mask is empty or no whole number of cells.
    """
    (rows, columns), (height, width) = values.shape, mask.shape
    if height % rows or width % columns or not mask.any():
        raise ValueError(
            f'a map of {rows} x {columns} cells needs a mask of whole cells, not {height} x {width}.'
        )
    shares = mask.reshape(rows, height // rows, columns, width // columns).mean(axis=(1, 3))
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    y, x = (2 * row + 1) * height // (2 * rows), (2 * column + 1) * width // (2 * columns)
    own = (shares >= _OWN) | (shares == shares.max())
    inside, outside = values[own], values[~own & (shares < _BESIDE)]
    wins = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
    return Quality(float(mask[y, x]), float(shares[row, column] > 0), float(wins))


def mean_quality(found: Sequence[Quality]) -> Quality:
    """The mean of some."""
    return Quality(*np.mean(found, axis=0).tolist())


def match_names(said: Sequence[str], true: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (said, true) of equal names, the first said with the first true of that name."""
    free = list(range(len(true)))
    pairs = []
    for index, name in enumerate(said):
        found = next((i for i in free if true[i] == name), None)
        if found is not None:
            free.remove(found)
            pairs.append((index, found))
    return pairs
