"""Points or boxes, levels and strides: what bare priors of a head show of their pyramid."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from atss_ext.assigners.base import AssignmentError
from atss_ext.ops.reference import box_centers
from atss_ext.ops.reference.boxes import compute_dtype

# The box that stands for a point is a square of this many strides: the paper's anchor (8S of its Table 5).
POINT_SCALE = 8
# No pyramid has more levels; priors that seem to are in no order that is known.
MAX_LEVELS = 16
# Centres, spacings and sizes that differ by less are equal: a part of a pixel, or of the size.
TOLERANCE = 1e-3

Sizes = Sequence[int]


def are_points(priors: Tensor, expected: bool) -> bool:
    """Whether priors are (centre x, centre y, stride x, stride y) and not boxes (x1, y1, x2, y2).

    Strides are positive and the same for a whole level. Read as boxes, points further from the origin than
    their stride are inverted, which no anchor is. Where no row is inverted and there are no more different
    strides than levels, both can be meant (a handful of priors beside the origin): then ``expected`` decides.

    Args:
        priors: [N, 4].
        expected: what the assigner is given by the head that it was made for.
    """
    if not len(priors):
        return expected
    ends = priors[:, 2:]
    changes = (ends[1:] != ends[:-1]).any(1).sum()
    inverted = (ends < priors[:, :2]).any()
    positive, inverted, changes = torch.stack([(ends > 0).all(), inverted, changes]).tolist()
    if not positive or changes >= MAX_LEVELS:
        return False
    return expected or bool(inverted)


def boxes_of_points(points: Tensor) -> Tensor:
    """Squares of :data:`POINT_SCALE` strides around points: [N, 4] (x, y, stride x, stride y) -> xyxy.

    That is the anchor box of the paper's ATSS, and of its RetinaNet and FCOS with one anchor a location
    (Table 1), at the same place. In float32 or better: halves do not hold coordinates beyond 2048.
    """
    points = points.to(compute_dtype(points.dtype))
    half = points[:, 2:] * (POINT_SCALE / 2)
    return torch.cat([points[:, :2] - half, points[:, :2] + half], 1)


def levels_of_points(points: Tensor) -> list[int]:
    """Sizes of the levels of points: one begins where the stride changes, or the place goes back."""
    own = points.detach().double().cpu()
    if len(own) <= 1:
        return [len(own)]
    back = _goes_back(own[:, :2], own.new_full((len(own) - 1,), TOLERANCE))
    return _sizes(back | (own[1:, 2:] != own[:-1, 2:]).any(1))


def strides_of_points(points: Tensor, sizes: Sizes) -> list[tuple[float, float]]:
    """L pairs (width, height): that of the first point of a level; of an empty one 1, which nobody reads."""
    first = [level[0, 2:].tolist() if len(level) else [1.0, 1.0] for level in points.split(list(sizes))]
    return [(width, height) for width, height in first]


def levels_of_boxes(boxes: Tensor) -> list[int]:
    """Sizes of the levels of anchors in mmdet's order, where a head does not count them.

    Levels follow each other; within one, locations go by rows and columns, and all anchors of a location are
    neighbours with one centre. So one begins

    1. where the centre goes back (up, or to the left in the same row);
    2. where it goes on, but no shape (width, height) from before is met again: the level before had one
       location;
    3. at the same centre, where both have one location: after as many anchors as other levels have shapes.

    Anchors may be missing (``allowed_border``, padding), as long as a level is left whose locations show its
    shapes, and levels of one location are complete.

    Args:
        boxes: [N, 4] xyxy.

    Raises:
        AssignmentError: where it cannot be told: other orders, centres that lie on no grid, or anchors at one
            and the same centre that may be one level or several.
    """
    own = boxes.detach().double().cpu()
    if len(own) <= 1:
        return [len(own)]
    centers, room = box_centers(own), _room(own)
    back = _goes_back(centers, room)
    if int(back.sum()) >= MAX_LEVELS:
        raise _untold(len(own), 'their centres do not go level by level, by rows and columns')
    moves = torch.ones(len(own), dtype=torch.bool)
    moves[1:] = (centers[1:] - centers[:-1]).abs().amax(1) > room
    pieces: list[Tensor] = []
    for run, starts in zip(own.split(_sizes(back)), moves.split(_sizes(back)), strict=True):
        pieces += run.split(_sizes(_new_shapes(run, starts)))
    return _split_locations(pieces, moves)


def strides_of_boxes(boxes: Tensor, sizes: Sizes) -> list[tuple[float, float]]:
    """The strides of levels of anchors: how far their locations lie apart.

    What a level does not show, the others do: one row or column has the ratio of width and height of the
    others (1 where none shows it), and anchors of one location are the same multiple of their stride as
    those of the others. An empty level has stride 1, which nobody reads.

    Args:
        boxes: [N, 4] xyxy.
        sizes: L counts that sum to N.

    Returns:
        L pairs (width, height), pixels.

    Raises:
        AssignmentError: where centres lie on no grid, or a level of one location has nothing to go by.
    """
    levels = boxes.detach().double().cpu().split(list(sizes))
    spacings = [tuple(_spacing(box_centers(level)[:, axis]) for axis in (0, 1)) for level in levels]
    ratio = next((height / width for width, height in spacings if width and height), 1.0)
    widths = [width or (height and height / ratio) for width, height in spacings]
    known = [index for index, width in enumerate(widths) if width]
    extents = [float((level[:, 2] - level[:, 0]).max()) if len(level) else 0.0 for level in levels]
    scales = [extents[index] / (widths[index] or 1.0) for index in known]
    for index, level in enumerate(levels):
        if widths[index] is None and len(level):
            # Whole, so that its widest anchor is there.
            alike = scales and max(scales) - min(scales) < 1e-2 * max(scales)
            if not alike or _count_shapes(level) < max(_count_shapes(levels[other]) for other in known):
                raise _untold(len(boxes), 'a level of one location does not show its stride')
            widths[index] = extents[index] / scales[0]
    return [
        (round(width or 1.0, 2), round(height or (width or 1.0) * ratio, 2))
        for width, (_, height) in zip(widths, spacings, strict=True)
    ]


def _spacing(places: Tensor) -> float | None:
    """How far neighbours on one axis lie apart: [n] -> pixels, None where all are at one place.

    Raises:
        AssignmentError: where the places are no multiples of it apart.
    """
    steps = places.sort().values.diff()
    steps = steps[steps > 10 * TOLERANCE]
    if not len(steps):
        return None
    least = steps.min()
    if ((steps / least - (steps / least).round()).abs() > 0.05).any():
        raise _untold(len(places), 'the centres of a level lie on no grid')
    return float(least)


def _goes_back(centers: Tensor, room: Tensor) -> Tensor:
    """[N, 2] -> [N - 1] bool: whether the next centre lies above, or in the same row to the left."""
    step = centers[1:] - centers[:-1]
    same_row = step[:, 1].abs() <= room
    return (step[:, 1] < -room) | (same_row & (step[:, 0] < -room))


def _room(boxes: Tensor) -> Tensor:
    """[N - 1]: how far centres of neighbours may differ by rounding alone."""
    return TOLERANCE * (boxes[1:, 2:] - boxes[1:, :2]).amax(1).clamp(min=1)


def _shape_numbers(boxes: Tensor) -> Tensor:
    """[N, 4] -> [N] int64: boxes of one width and height, but for rounding, have one number."""
    width, height = (_cluster(boxes[:, axis + 2] - boxes[:, axis]) for axis in (0, 1))
    return width * (len(boxes) + 1) + height


def _cluster(values: Tensor) -> Tensor:
    """[N] -> [N] int64: equal for values whose neighbours in order differ by rounding alone."""
    ordered, order = values.sort()
    apart = ordered.diff() > TOLERANCE * ordered[1:].abs().clamp(min=1)
    numbers = torch.zeros(len(values), dtype=torch.int64)
    numbers[order[1:]] = apart.cumsum(0)
    return numbers


def _count_shapes(boxes: Tensor) -> int:
    return len(_shape_numbers(boxes).unique())


def _new_shapes(boxes: Tensor, starts: Tensor) -> Tensor:
    """[n - 1] bool: whether the next prior begins a location from which on no shape from before is met.

    Args:
        boxes: [n, 4], of one or more levels.
        starts: [n] bool, the first prior of every location.
    """
    none = torch.zeros(len(boxes) - 1, dtype=torch.bool)
    ends = boxes[[0, int(starts.nonzero()[-1, 0])]]
    if not starts[1:].any() or _count_shapes(ends) == 1:  # the first shape spans them all
        return none
    _, number = _shape_numbers(boxes).unique(return_inverse=True)
    index, kinds = torch.arange(len(boxes)), int(number.max()) + 1
    first = torch.full((kinds,), len(boxes)).scatter_reduce_(0, number, index, 'amin')
    last = torch.zeros(kinds, dtype=torch.int64).scatter_reduce_(0, number, index, 'amax')
    # How many shapes are met both before a prior and at or after it.
    spanning = torch.zeros(len(boxes) + 1, dtype=torch.int64)
    spanning.index_add_(0, first + 1, torch.ones_like(first))
    spanning.index_add_(0, last + 1, -torch.ones_like(last))
    return starts[1:] & (spanning.cumsum(0)[1 : len(boxes)] == 0)


def _split_locations(pieces: Sequence[Tensor], moves: Tensor) -> list[int]:
    """Sizes of the levels, once those of one location are told apart.

    Args:
        pieces: of all priors, each of one level, or of several that have the same one location.
        moves: [N] bool, the first prior of every location.
    """
    counts = [len(piece) for piece in pieces]
    alone = [not bool(starts[1:].any()) for starts in moves.split(counts)]
    sizes: list[int] = []
    anchors = None
    for count, one in zip(counts, alone, strict=True):
        if not one or count == 1:
            sizes.append(count)
            continue
        if anchors is None:
            pairs = zip(pieces, alone, strict=True)
            anchors = max((_count_shapes(piece) for piece, single in pairs if not single), default=0)
        if count <= anchors:
            sizes.append(count)
        elif anchors and count % anchors == 0:
            sizes += [anchors] * (count // anchors)
        else:
            raise _untold(len(moves), f'{count} of them have one and the same centre')
    return sizes


def _sizes(begins: Tensor) -> list[int]:
    """Sizes of parts, [n - 1] bool: whether the next one of n begins a part."""
    bounds = [0, *(begins.nonzero()[:, 0] + 1).tolist(), len(begins) + 1]
    return [end - start for start, end in pairwise(bounds)]


def _untold(count: int, why: str) -> AssignmentError:
    return AssignmentError(
        f'the levels of {count} priors cannot be told ({why}): pass num_level_priors, or take a head that '
        'does, such as mmdet.ATSSHead or atss_ext.ATSSHead'
    )
