"""A mask as one closed polygon, holes and separate parts included.

YOLO has one polygon a line, and its readers fill it by the even-odd rule, its edge included
(``cv2.fillPoly``, ``ImageDraw.polygon``) after cutting coordinates to whole pixels. So the outline runs a
quarter of a pixel inside of the mask's edge: cut, it lies on the outermost pixels of the mask, and taken as
it is, it has the mask's pixel centres within.

Parts and holes are tied together by bridges, which lead to a contour, around it, and back on the same line.
A bridge to a hole lies on the mask; one between parts is drawn as a line one pixel wide by such readers, so a
part that is smaller than its bridge is left out.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

IntPoints = NDArray[np.int32]  # [P, 2], x and y

_DOUBLED = 4_000_000  # pixels; larger masks are outlined through the centres of their pixels
_MOST_CONTOURS = 100
_MOST_POINTS = 4000  # that nearest points are sought among
_TOLERANCES = (2.0, 1.0, 0.5)  # pixels


class _Contour(NamedTuple):
    points: IntPoints
    area: float  # with its edge, in squares of the grid
    parent: int  # of a hole: the contour it lies in; -1 otherwise


def mask_polygon(mask: NDArray[np.bool_], min_iou: float = 0.98) -> NDArray[np.float64] | None:
    """Outline a mask.

    Args:
        mask: bool [H, W].
        min_iou: the least IoU, drawn as said above, that is left by a polygon of fewer points, relative to
            that of the exact one; 1.0 simplifies nothing.

    Returns:
        [P, 2], x and y in pixels of the image (the first pixel spans 0..1), P >= 3; None if the mask is
        empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    left, top = int(columns[0]), int(rows[0])
    crop = np.ascontiguousarray(mask[top : rows[-1] + 1, left : columns[-1] + 1], np.uint8)
    grid = 2 if crop.size <= _DOUBLED else 1  # points of the grid a pixel
    outline = _without_straight(_joined(_contours(crop, grid), grid))
    if min_iou < 1:
        outline = _simplified(outline, crop, grid, min_iou)
    if len(outline) < 3:
        outline = np.concatenate([outline, np.repeat(outline[-1:], 3 - len(outline), axis=0)])
    return (outline + 0.5) / grid + (left, top)


def _contours(crop: NDArray[np.uint8], grid: int) -> list[_Contour]:
    """Outer contours and holes, the largest first; every point of the grid they pass."""
    fine = crop.repeat(grid, axis=0).repeat(grid, axis=1) if grid > 1 else crop
    found, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    points = [np.asarray(contour, np.int32).reshape(-1, 2) for contour in found]
    # Pick's theorem: points of the grid within and on the contour. (Of a hole they include its rim.)
    areas = np.array([abs(cv2.contourArea(contour)) + len(contour) / 2 + 1 for contour in found])
    order = np.argsort(-areas, kind='stable')[:_MOST_CONTOURS].tolist()
    place = {number: rank for rank, number in enumerate(order)} | {-1: -1}
    parents = [int(row[3]) for row in hierarchy[0]]
    return [
        _Contour(points[number], float(areas[number]), place[parents[number]])
        for number in order
        if parents[number] in place
    ]


def _joined(contours: list[_Contour], grid: int) -> IntPoints:
    """One closed line along all contours that are worth their bridge, beginning with the largest part."""
    first = next(number for number, contour in enumerate(contours) if contour.parent < 0)
    line, members = contours[first].points, {first}
    area = contours[first].area
    every = -(-sum(len(contour.points) for contour in contours) // _MOST_POINTS)
    samples = [contour.points[::every] for contour in contours]
    bridges = {n: _bridge(samples[first], samples[n]) for n in range(len(contours)) if n != first}
    while True:
        best = None
        for number, (length, _, _) in bridges.items():
            contour = contours[number]
            if contour.parent >= 0:
                worth = contour.parent in members
            else:
                # IoU of leaving it out against that of drawing a bridge, one pixel wide.
                drawn = length * grid
                worth = contour.area * (area + drawn) > area * drawn
            if worth and (best is None or length < bridges[best][0]):
                best = number
        if best is None:
            return line
        _, here, there = bridges.pop(best)
        line = _insert(line, here, contours[best].points, there)
        members.add(best)
        area += contours[best].area if contours[best].parent < 0 else 0
        for number, bridge in bridges.items():
            new = _bridge(samples[best], samples[number])
            bridges[number] = min(bridge, new, key=lambda entry: entry[0])


def _bridge(one: IntPoints, other: IntPoints) -> tuple[float, IntPoints, IntPoints]:
    """(length, point of one, point of the other) where two contours come nearest."""
    best = (np.inf, one[0], other[0])
    step = max(1, 4_000_000 // len(other))
    for start in range(0, len(one), step):
        part = one[start : start + step].astype(np.float32)
        gaps = ((part[:, None] - other[None]) ** 2).sum(axis=2)
        row, column = divmod(int(gaps.argmin()), len(other))
        if gaps[row, column] < best[0]:
            best = (float(gaps[row, column]), one[start + row], other[column])
    return float(np.sqrt(best[0])), best[1], best[2]


def _insert(line: IntPoints, here: IntPoints, contour: IntPoints, there: IntPoints) -> IntPoints:
    """From ``here`` on the line over to ``there``, around the contour, and back."""
    at = int((line == here).all(axis=1).argmax())
    start = int((contour == there).all(axis=1).argmax())
    around = np.concatenate([contour[start:], contour[: start + 1]])
    return np.concatenate([line[: at + 1], around, line[at:]])


def _without_straight(line: IntPoints) -> IntPoints:
    """The closed line without points at which it goes straight on."""
    line = line[(line != np.roll(line, 1, axis=0)).any(axis=1)] if len(line) > 1 else line
    if len(line) < 3:
        return line
    before, after = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return line[(cross != 0) | ((before * after).sum(axis=1) < 0)]


def _simplified(line: IntPoints, crop: NDArray[np.uint8], grid: int, min_iou: float) -> IntPoints:
    """The line of fewest points that still covers the mask well enough."""
    wanted = min_iou * _iou(line, crop, grid)
    for tolerance in _TOLERANCES:
        found = cv2.approxPolyDP(line.reshape(-1, 1, 2), tolerance * grid, True)
        simpler = np.asarray(found, np.int32).reshape(-1, 2)
        if len(simpler) >= 3 and _iou(simpler, crop, grid) >= wanted:
            return simpler
    return line


def _iou(line: IntPoints, crop: NDArray[np.uint8], grid: int) -> float:
    drawn = np.zeros_like(crop)
    cv2.fillPoly(drawn, [line // grid], 1)
    return float(np.count_nonzero(drawn & crop) / np.count_nonzero(drawn | crop))
