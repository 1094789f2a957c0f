"""Prompts as VL-SAM makes them: points at the centres of the cells of a coarse attention map, and boxes.

Attention is coarse, so that the positive point may lie a few pixels beside its object; what it means is then
the object nearest to it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

GRID = 8
"""Rows and columns of an attention map over a view."""

NEAR = 4.0
"""How far beside its object a positive point may lie, pixels."""

_OFF = 0.22  # share of positive points beside their object
_ANYWHERE = 0.25  # of those on it that are no centre of a cell: other models have other grids
_OTHER = 0.3  # share of negative points on another object, where there is one
_EXACT = 0.25  # share of boxes without noise
_NOISE = 0.1  # of the other boxes' sides, relative to the box ("Segment Anything", appendix A)


class Prompts(NamedTuple):
    """What O objects are prompted with; points, boxes or both.

    Attributes:
        points: float32 [O, P, 2], (x, y) in pixels of the view, or None.
        labels: int64 [O, P], 1 on the object, 0 beside it, or None.
        boxes: float32 xyxy [O, 4] in pixels of the view, or None.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None


def grid_centres(height: int, width: int) -> NDArray[np.float32]:
    """The centres (x, y) of the cells of a map over a view, float32 [GRID * GRID, 2], pixels, row by row."""
    x = (np.arange(GRID, dtype=np.float32) + 0.5) * (width / GRID)
    y = (np.arange(GRID, dtype=np.float32) + 0.5) * (height / GRID)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def distances(masks: NDArray[np.bool_], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far points lie from objects.

    Args:
        masks: bool [M, H, W], none empty.
        centres: float32 [C, 2], (x, y) in pixels.

    Returns:
        float32 [M, C], pixels to the centre of the nearest pixel of the object; 0 on the object.
    """
    found = np.zeros((len(masks), len(centres)), np.float32)
    columns, rows = centres.astype(np.int64).T
    for mask, row in zip(masks, found, strict=True):
        y, x = np.nonzero(mask)
        squares = (centres[:, :1] - (x + 0.5)) ** 2 + (centres[:, 1:] - (y + 0.5)) ** 2
        row[:] = np.sqrt(squares.min(axis=1))
        row[mask[rows, columns]] = 0
    return found


def draw_positive(
    number: int, masks: NDArray[np.bool_], far: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """A positive point: a cell on the object or close beside it, or any pixel of it.

    Args:
        number: of the object among M.
        masks: bool [M, H, W].
        far: float32 [M, GRID * GRID], see :func:`distances`.
        rng: chance.

    Returns:
        float32 (x, y), pixels.
    """
    centres = grid_centres(*masks.shape[1:])
    own = far[number]
    nearest = own <= far.min(axis=0)
    beside = np.flatnonzero(nearest & (own > 0) & (own <= NEAR))
    inside = np.flatnonzero(own == 0)
    off, anywhere = rng.random(2) < (_OFF, _ANYWHERE)
    if off and len(beside):
        return centres[rng.choice(beside)]
    if anywhere or not len(inside):
        y, x = np.nonzero(masks[number])
        pixel = rng.integers(len(x))
        return np.array([x[pixel] + 0.5, y[pixel] + 0.5], np.float32)
    return centres[rng.choice(inside)]


def draw_negative(number: int, far: NDArray[np.float32], rng: np.random.Generator) -> int:
    """A negative point: a cell on another object or anywhere else beside the object.

    Args:
        number: of the object among M.
        far: float32 [M, GRID * GRID], see :func:`distances`.
        rng: chance.

    Returns:
        the cell; the farthest one where the object fills them all.
    """
    others = np.flatnonzero((np.delete(far, number, axis=0) == 0).any(axis=0) & (far[number] > 0))
    beside = np.flatnonzero(far[number] > 0)
    wants_other = rng.random() < _OTHER
    if wants_other and len(others):
        return int(rng.choice(others))
    return int(rng.choice(beside)) if len(beside) else int(far[number].argmax())


def central_point(mask: NDArray[np.bool_], far: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cell on an object that is nearest to its middle, or else the pixel of it that is.

    Args:
        mask: bool [H, W], not empty.
        far: float32 [GRID * GRID], of this object.

    Returns:
        float32 (x, y), pixels.
    """
    pixels = np.stack(np.nonzero(mask)[::-1], axis=1).astype(np.float32) + 0.5
    choices = grid_centres(*mask.shape)[far == 0]
    choices = choices if len(choices) else pixels
    return choices[((choices - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()]


def jitter_box(
    box: NDArray[np.float32], size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """A box drawn by a less steady hand, within the view.

    Args:
        box: float32 xyxy [4], pixels.
        size: (H, W) of the view.
        rng: chance.
    """
    noise = rng.normal(0, _NOISE, 4) * np.tile(box[2:] - box[:2], 2)
    if rng.random() < _EXACT:
        return box
    height, width = size
    return np.clip(box + noise, 0, [width, height, width, height]).astype(np.float32)
