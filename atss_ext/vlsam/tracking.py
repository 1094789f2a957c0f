"""The same object keeps its number from frame to frame of a video."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from scipy.optimize import linear_sum_assignment

from atss_ext.vlsam.detections import Detections


class Tracker:
    """Numbers objects by the overlap of their masks with those of the frames before.

    An object keeps its number while one of the same name overlaps it; of several, all together are matched
    so that the summed IoU is greatest. One that is not seen for ``patience`` frames is forgotten.

    Args:
        iou_threshold: least mask IoU of the same object in two frames, 0..1.
        patience: frames that an object may be missing, at least 0.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(self, iou_threshold: float = 0.3, patience: int = 3) -> None:
        if not 0 < iou_threshold <= 1:
            raise ValueError(f'iou_threshold must be in (0, 1], but is {iou_threshold}.')
        if patience < 0:
            raise ValueError(f'patience must be at least 0, but is {patience}.')
        self.iou_threshold, self.patience = iou_threshold, patience
        self._known: dict[int, tuple[str, Mapping[str, Any], int]] = {}  # number: name, mask, frames missing
        self._next = 1

    def update(self, found: Detections) -> list[int]:
        """The numbers, from 1, of the objects of the next frame: D integers."""
        numbers = [0] * len(found)
        for index, number in self._matches(found):
            numbers[index] = number
        for index, number in enumerate(numbers):
            if not number:
                numbers[index], self._next = self._next, self._next + 1
        missing = {n: (name, mask, age + 1) for n, (name, mask, age) in self._known.items()}
        self._known = {n: row for n, row in missing.items() if row[2] <= self.patience}
        for index, number in enumerate(numbers):
            self._known[number] = (found.names[index], found.run_lengths[index], 0)
        return numbers

    def _matches(self, found: Detections) -> list[tuple[int, int]]:
        if not len(found) or not self._known:
            return []
        known = list(self._known)
        overlaps: NDArray[np.float64] = np.asarray(
            rle.iou(found.run_lengths, [self._known[n][1] for n in known], [0] * len(known))
        )
        same = np.array([[name == self._known[n][0] for n in known] for name in found.names])
        overlaps = np.where(same & (overlaps >= self.iou_threshold), overlaps, 0.0)
        rows, columns = linear_sum_assignment(overlaps, maximize=True)
        return [
            (int(row), known[column])
            for row, column in zip(rows, columns, strict=True)
            if overlaps[row, column] > 0
        ]
