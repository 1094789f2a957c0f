"""Recognising levels whose priors stand on a grid, so that nearest priors follow from arithmetic."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from atss_ext.ops.reference import box_centers, compute_dtype

# Centres may lie this share of a stride beside their cell: float32 anchors do, by rounding.
MAX_SLACK = 1e-3


class GridLevel(NamedTuple):
    """A level whose priors stand row by row, column by column, anchor by anchor.

    Attributes:
        height: rows.
        width: columns.
        anchors: priors a cell.
        stride: (x, y) from cell to cell, pixels.
        offset: (x, y) centre of the first cell, pixels.
        slack: how far a centre lies from its cell's at most, per axis, pixels; any value that is not too
            small keeps results exact.
    """

    height: int
    width: int
    anchors: int
    stride: tuple[float, float]
    offset: tuple[float, float]
    slack: float


def find_grid(
    priors: Tensor, shapes: Sequence[tuple[int, int]], anchors: Sequence[int]
) -> tuple[GridLevel, ...] | None:
    """Describes the levels if their priors stand on grids: measured, never assumed.

    Reads the priors on the host: those of another device are copied, which waits for it. Call it once a
    feature shape, with priors on the CPU.

    Args:
        priors: [N, 4] xyxy, pixels, on any device; all levels one after the other.
        shapes: L pairs (height, width).
        anchors: L counts of priors a cell.

    Returns:
        L levels, or None where any level is something else.
    """
    sizes = [height * width * count for (height, width), count in zip(shapes, anchors, strict=True)]
    if sum(sizes) != priors.size(0):
        return None
    levels = []
    for level, (height, width), count in zip(priors.cpu().split(sizes), shapes, anchors, strict=True):
        grid = _find_level(_both_centers(level), height, width, count)
        if grid is None:
            return None
        levels.append(grid)
    return tuple(levels)


def _both_centers(boxes: Tensor) -> Tensor:
    """Centres [n, 2, 2] of boxes [n, 4]: exact, and as the ops round them; slack has to cover both."""
    rounded = box_centers(boxes.to(compute_dtype(boxes.dtype)))
    return torch.stack([box_centers(boxes.double()), rounded.double()], 1)


def _find_level(centers: Tensor, height: int, width: int, anchors: int) -> GridLevel | None:
    """:func:`find_grid` for the centres [n, 2, 2] of one level."""
    if not centers.numel():
        return GridLevel(height, width, anchors, (1.0, 1.0), (0.0, 0.0), 0.0)
    cells = centers.view(height, width, 2 * anchors, 2)
    first, last = cells[0, 0, 0], cells[-1, -1, 0]
    steps = torch.tensor([width - 1, height - 1], dtype=centers.dtype, device='cpu')
    # A single row or column has no stride; any will do.
    stride = torch.where(steps > 0, (last - first) / steps.clamp(min=1), 1.0)
    rows, columns = torch.arange(height, device='cpu'), torch.arange(width, device='cpu')
    ideal = torch.stack(torch.meshgrid(columns, rows, indexing='xy'), -1) * stride + first  # [H, W, 2]
    slack = float((cells - ideal[:, :, None]).abs().max())
    if not (bool((stride > 0).all()) and slack <= MAX_SLACK * float(stride.min())):
        return None
    (stride_x, stride_y), (x, y) = stride.tolist(), first.tolist()
    return GridLevel(height, width, anchors, (stride_x, stride_y), (x, y), slack)


def flatten(grid: Sequence[GridLevel] | None) -> tuple[list[int], list[float]]:
    """The levels as the native schemas spell them: three shape and five geometry values a level."""
    shapes: list[int] = []
    geometry: list[float] = []
    for level in grid or ():
        shapes += [level.height, level.width, level.anchors]
        geometry += [*level.stride, *level.offset, level.slack]
    return shapes, geometry
