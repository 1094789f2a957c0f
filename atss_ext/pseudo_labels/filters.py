"""Which boxes are fit to learn from: by confidence, size, overlap and how often their class is there."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atss_ext.vlsam.ensemble import MergeOptions, merge


@dataclass(frozen=True)
class FilterOptions:
    """What a label has to be.

    Attributes:
        score_thr: least confidence, 0..1; a box at the threshold stays.
        class_quantile: of every class this share of boxes, the least confident, is left out; 0 to below 1.
        min_area: least area of the mask, square pixels.
        nms_iou: of two boxes of one class in an image that overlap by more, the better one stays; 1 leaves
            out equal boxes alone.
        min_count: least number of boxes of a class.

    Raises:
        ValueError: a value out of its range.
    """

    score_thr: float = 0.0
    class_quantile: float = 0.0
    min_area: float = 0.0
    nms_iou: float = 0.7
    min_count: int = 1

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ('score_thr', 'nms_iou'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name} must be from 0 to 1, but is {getattr(self, name)}.')
        if not 0 <= self.class_quantile < 1:
            raise ValueError(f'class_quantile must be from 0 to below 1, but is {self.class_quantile}.')
        if not 0 <= self.min_area < math.inf:
            raise ValueError(f'min_area must be 0 or more, but is {self.min_area}.')
        if self.min_count < 1:
            raise ValueError(f'min_count must be at least 1, but is {self.min_count}.')


def above_quantile(scores: NDArray[np.float64], classes: Sequence[str], quantile: float) -> NDArray[np.bool_]:
    """Which of N boxes are among the best of their class.

    Of n boxes of a class the ``floor(quantile * n)`` least confident are out, but none that is as confident
    as one that stays.

    Args:
        scores: [N].
        classes: N names.
        quantile: 0..1, below 1.

    Returns:
        bool [N].
    """
    keep = np.ones(len(scores), bool)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(classes))}
    for rows in _groups(np.array([numbers[name] for name in classes], np.int64)):
        # 0.29 * 100 is 28.999...: what is meant are 29.
        out = math.floor(quantile * len(rows) + 1e-9)
        keep[rows] = scores[rows] >= np.sort(scores[rows])[out]
    return keep


def best_of_overlapping(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    classes: Sequence[str],
    images: NDArray[np.int64],
    nms_iou: float,
) -> NDArray[np.bool_]:
    """Which of N boxes no better one of their class and image overlaps.

    Args:
        boxes: xywh [N, 4].
        scores: [N].
        classes: N names.
        images: [N], the image of each.
        nms_iou: overlap above which the worse one is out; of equal boxes always one stays.

    Returns:
        bool [N].
    """
    keep = np.zeros(len(scores), bool)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    options = MergeOptions(iou_threshold=nms_iou, class_agnostic=False)
    for rows in _groups(images):
        found = merge(corners[rows], scores[rows], [classes[row] for row in rows], options=options)
        keep[rows[found]] = True
    return keep & _first_of_equal(boxes, scores, classes, images)


def _groups(keys: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each different key, [n] each, rising."""
    if not len(keys):
        return []
    order = np.argsort(keys, kind='stable')
    return np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)


def _first_of_equal(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    classes: Sequence[str],
    images: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Of boxes equal to the number, the best; no IoU is above 1."""
    keep = np.zeros(len(scores), bool)
    seen = set()
    for row in np.argsort(-scores, kind='stable').tolist():
        key = (int(images[row]), classes[row], *boxes[row].tolist())
        keep[row] = key not in seen
        seen.add(key)
    return keep


def rare_classes(classes: Sequence[str], min_count: int) -> set[str]:
    """Classes of fewer boxes than ``min_count``."""
    return {name for name, count in Counter(classes).items() if count < min_count}
