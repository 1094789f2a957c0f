"""Which detection finds which object, by the rules of pycocotools and lvis-api, at one IoU threshold.

Source: ``COCOeval.evaluateImg`` of pycocotools and ``LVISEval.evaluate_img`` of lvis-api: of each image and
category, detections in order of score each take the free object of the highest IoU; ignored objects are taken
only where no other is free, and a crowd any number of times.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.evaluation.errors.results import Detections
from atss_ext.evaluation.errors.truth import Truth
from atss_ext.evaluation.lvis.truth import contains

NOTHING = -1
"""Stands for no object."""


@dataclass(frozen=True)
class Matching:
    """N detections against G objects.

    Attributes:
        truth: the objects.
        detections: the detections.
        threshold: the IoU from which a detection finds an object.
        found: the object that each detection found, or :data:`NOTHING`, [N].
        ignored: bool [N]; it found an ignored object, or its image was not searched for its category.
        same: the counted object of the detection's category with the highest IoU, or :data:`NOTHING`, [N].
        same_iou: that IoU, 0 where there is none, [N].
        other: the same among the other categories, [N].
        other_iou: that IoU, [N].
    """

    truth: Truth
    detections: Detections
    threshold: float
    found: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    same: NDArray[np.int64]
    same_iou: NDArray[np.float64]
    other: NDArray[np.int64]
    other_iou: NDArray[np.float64]


def match(truth: Truth, detections: Detections, threshold: float = 0.5) -> Matching:
    """Match all detections with all objects.

    Args:
        truth: the objects.
        detections: the detections.
        threshold: IoU from which a detection finds an object, in (0, 1].

    Raises:
        ValueError: the threshold is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f'the IoU threshold is {threshold}, but must be above 0 and at most 1')
    count = len(detections.scores)
    found, same, other = (np.full(count, NOTHING, np.int64) for _ in range(3))
    same_iou, other_iou = np.zeros(count), np.zeros(count)
    rows = np.arange(len(truth.images) + 1)
    first, start = np.searchsorted(truth.image, rows), np.searchsorted(detections.image, rows)
    for row in np.flatnonzero((np.diff(first) > 0) & (np.diff(start) > 0)).tolist():
        objects, ours = slice(first[row], first[row + 1]), slice(start[row], start[row + 1])
        crowd = truth.crowd[objects]
        iou = np.asarray(
            rle.iou(detections.boxes[ours], truth.boxes[objects], crowd.astype(np.uint8).tolist())
        )
        alike = detections.category[ours, None] == truth.category[objects]
        counted = len(crowd) - int(truth.ignore[objects].sum())
        same[ours], same_iou[ours] = _nearest(iou[:, :counted], alike[:, :counted], first[row])
        other[ours], other_iou[ours] = _nearest(iou[:, :counted], ~alike[:, :counted], first[row])
        allowed = alike & (iou >= min(threshold, 1 - 1e-10))
        taken = _take(iou, allowed, counted, crowd)
        found[ours] = np.where(taken == NOTHING, NOTHING, taken + first[row])
    ignored = _ignored(truth, detections, found)
    return Matching(truth, detections, threshold, found, ignored, same, same_iou, other, other_iou)


def _nearest(
    iou: NDArray[np.float64], among: NDArray[np.bool_], first: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The object of highest IoU of each detection, and that IoU."""
    if not iou.shape[1]:
        return np.full(len(iou), NOTHING, np.int64), np.zeros(len(iou))
    masked = np.where(among, iou, 0.0)
    place = masked.argmax(axis=1)
    best = masked[np.arange(len(iou)), place]
    return np.where(best > 0, place + first, NOTHING), best


def _take(
    iou: NDArray[np.float64], allowed: NDArray[np.bool_], counted: int, crowd: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The object each detection of an image takes, [D]; objects from ``counted`` on are ignored ones."""
    taken = np.full(len(iou), NOTHING, np.int64)
    free = np.ones(iou.shape[1], bool)
    for detection in np.flatnonzero(allowed.any(axis=1)).tolist():
        places = np.flatnonzero(allowed[detection] & free)
        if not len(places):
            continue
        if places[0] < counted:
            places = places[places < counted]
        # Of equal IoUs pycocotools takes the last.
        overlaps = iou[detection, places][::-1]
        place = int(places[len(places) - 1 - int(overlaps.argmax())])
        taken[detection] = place
        free[place] = crowd[place]
    return taken


def _ignored(truth: Truth, detections: Detections, found: NDArray[np.int64]) -> Any:
    matched = found != NOTHING
    ignored = np.zeros(len(found), bool)
    ignored[matched] = truth.ignore[found[matched]]
    if truth.searched is not None and truth.partial is not None:
        pairs = detections.image * len(truth.names) + detections.category
        ignored |= ~contains(pairs, truth.searched)
        ignored |= ~matched & contains(pairs, truth.partial)
    return ignored
