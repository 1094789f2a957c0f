"""Which detections of one category on one image meet an object.

Source: COCO's and LVIS's evaluation. Detections choose in order of their scores, at every IoU threshold anew:
of the objects still free the one with the highest IoU, one that counts before one that is ignored.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.evaluation.grid import AREAS, THRESHOLDS
from atss_ext.evaluation.lvis.truth import Objects

RECALLS = np.linspace(0.0, 1.0, 101)
"""The recalls that precision is read at, [R]."""


class LvisCurves(NamedTuple):
    """What all figures are means of; -1 where a category has no object that counts.

    Attributes:
        precision: [A, T, K, R], areas, IoU thresholds, categories, recalls.
        recall: [A, T, K].
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def outside(areas: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of N regions are outside of each range of areas, [A, N]."""
    result: NDArray[np.bool_] = (areas < AREAS[:, :1]) | (areas > AREAS[:, 1:])
    return result


def match(regions: Any, objects: Objects) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match the D detections of a category on an image, best first, with its objects.

    Args:
        regions: boxes, xywh [D, 4], or D masks as run lengths.
        objects: G of them.

    Returns:
        matched: [A, T, D], the detection met an object.
        ignored: [A, T, D], and that object is ignored or outside of the range of areas.
    """
    goals = objects.run_lengths() if isinstance(regions, list) else objects.boxes
    overlaps = np.asarray(rle.iou(regions, goals, [0] * len(objects)), np.float64)  # [D, G]
    ignore = (outside(objects.areas) | objects.ignore)[:, None, :]  # [A, 1, G]
    wanted = np.minimum(THRESHOLDS, 1 - 1e-10)[None, :, None]
    free = np.ones((len(AREAS), len(THRESHOLDS), len(objects)), bool)
    matched = np.zeros((len(AREAS), len(THRESHOLDS), len(overlaps)), bool)
    ignored = np.zeros_like(matched)
    areas, thresholds = np.ogrid[: len(AREAS), : len(THRESHOLDS)]
    for place in np.flatnonzero(overlaps.max(axis=1) >= wanted[0, 0, 0]):
        possible = free & (overlaps[place] >= wanted)
        counting = possible & ~ignore
        choice = np.where(counting.any(axis=2, keepdims=True), counting, possible)
        # Of equal IoUs the last object is taken, as the reference does.
        best = len(objects) - 1 - np.where(choice, overlaps[place], -1.0)[..., ::-1].argmax(axis=2)
        met = choice.any(axis=2)
        matched[..., place] = met
        ignored[..., place] = met & ignore[areas, 0, best]
        free[areas, thresholds, best] &= ~met
    return matched, ignored
