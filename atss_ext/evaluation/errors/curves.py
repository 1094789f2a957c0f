"""Precision over recall of each category, as pycocotools accumulates it.

Source: ``COCOeval.accumulate`` of pycocotools: 101 recalls, precision made monotone from the right.
"""

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.errors.matching import NOTHING, Matching

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where the curves are read, [R]."""


def precision_curves(matching: Matching) -> NDArray[np.float64]:
    """Precision at :data:`RECALLS` of each category.

    All detections count, whatever their score.

    Returns:
        [R, K], -1 where a category has no objects: ``eval['precision'][t, :, :, 0, -1]`` of pycocotools, for
        the threshold t and the limit of detections that were matched with.
    """
    truth, detections = matching.truth, matching.detections
    count = len(truth.names)
    objects = np.bincount(truth.category[~truth.ignore], minlength=count)
    curves = np.where(objects > 0, 0.0, -1.0) * np.ones((len(RECALLS), 1))
    counted = np.flatnonzero(~matching.ignored)
    # Stable, as pycocotools: equal scores stay in order of images.
    order = counted[np.lexsort((-detections.scores[counted], detections.category[counted]))]
    correct = matching.found[order] != NOTHING
    ends = np.searchsorted(detections.category[order], np.arange(count + 1))
    for row in np.flatnonzero((objects > 0) & (np.diff(ends) > 0)).tolist():
        curves[:, row] = _curve(correct[ends[row] : ends[row + 1]], int(objects[row]))
    return curves


def average_precision(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """AP of each category, [K]; -1 where it has no objects."""
    values: NDArray[np.float64] = curves.mean(axis=0)
    return values


def mean_curve(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the categories that have objects, [R]; -1 if none has."""
    there = curves[:, curves[0] > -1]
    mean: NDArray[np.float64] = there.mean(axis=1) if there.size else np.full(len(RECALLS), -1.0)
    return mean


def _curve(correct: NDArray[np.bool_], objects: int) -> NDArray[np.float64]:
    """Precision at the recalls, of detections by falling score."""
    hits = np.cumsum(correct, dtype=np.float64)
    recall = hits / objects
    precision = hits / (np.arange(1, len(hits) + 1) + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side='left')
    reached = places < len(precision)
    curve = np.zeros(len(RECALLS))
    curve[reached] = precision[places[reached]]
    return curve
