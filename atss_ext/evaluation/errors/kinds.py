"""What kind of error a detection is, and what became of an object.

After Bolya et al., *TIDE: A General Toolbox for Identifying Object Detection Errors* (ECCV 2020), section
2.2, with its thresholds. The paper's conditions overlap; here the first that holds decides, in the order of
:class:`Kind`: an overlap that would have been enough goes before a lesser one, and the own category before
others.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.errors.matching import NOTHING, Matching

BACKGROUND_IOU = 0.1
"""TIDE's t_b: what overlaps every object by less lies on background."""
LEFT_OUT = -1
"""Stands in place of a kind for detections below the score."""


class Kind(IntEnum):
    """What a detection is; t is the IoU threshold, t_b is :data:`BACKGROUND_IOU`."""

    CORRECT = 0
    """It found an object."""
    DUPLICATE = 1
    """IoU of t with an object of its category that a better detection found."""
    CONFUSED = 2
    """IoU of t with an object of another category."""
    LOCALISATION = 3
    """IoU of t_b, yet less than t, with an object of its category."""
    BOTH = 4
    """IoU of t_b, yet less than t, with an object of another category."""
    BACKGROUND = 5
    """IoU below t_b with every object."""
    IGNORED = 6
    """It found a crowd or an ignored object, or its image was not searched for its category."""


class Outcome(IntEnum):
    """What became of an object."""

    FOUND = 0
    CONFUSED = 1
    """Not found, but a detection of kind CONFUSED lies on it."""
    LOCALISATION = 2
    """Not found, but a detection of kind LOCALISATION lies on it."""
    MISSED = 3
    """Neither: TIDE's missed ground truth."""
    IGNORED = 4


WRONG = (Kind.DUPLICATE, Kind.CONFUSED, Kind.LOCALISATION, Kind.BOTH, Kind.BACKGROUND)
"""The kinds of errors of detections."""


@dataclass(frozen=True)
class Kinds:
    """The kind of each detection and the outcome of each object.

    Attributes:
        matching: what they come from.
        score: detections of a lower score are left out.
        kind: a :class:`Kind` of each detection, or :data:`LEFT_OUT`, [N].
        target: the object a detection found, doubled, confused or overlapped, or ``NOTHING``, [N].
        outcome: an :class:`Outcome` of each object, [G].
    """

    matching: Matching
    score: float
    kind: NDArray[np.int64]
    target: NDArray[np.int64]
    outcome: NDArray[np.int64]


def classify(matching: Matching, score: float = 0.0) -> Kinds:
    """Give each detection its one kind and each object its one outcome.

    Detections are matched best first, so that those below ``score`` change nothing for the others.

    Args:
        matching: detections against objects.
        score: detections of a lower score are left out.
    """
    enough = min(matching.threshold, 1 - 1e-10)
    lesser = min(BACKGROUND_IOU, enough)
    matched = matching.found != NOTHING
    conditions = [
        matching.detections.scores < score,
        matching.ignored,
        matched,
        matching.same_iou >= enough,
        matching.other_iou >= enough,
        matching.same_iou >= lesser,
        matching.other_iou >= lesser,
    ]
    names = [LEFT_OUT, Kind.IGNORED, *list(Kind)[: Kind.BACKGROUND]]
    kind = np.select(conditions, [np.int64(name) for name in names], np.int64(Kind.BACKGROUND))
    own, others = (Kind.DUPLICATE, Kind.LOCALISATION), (Kind.CONFUSED, Kind.BOTH)
    target = np.select(
        [matched, np.isin(kind, own), np.isin(kind, others)],
        [matching.found, matching.same, matching.other],
        np.int64(NOTHING),
    )
    return Kinds(matching, score, kind, target, _outcomes(matching, kind, target))


def _outcomes(matching: Matching, kind: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.int64]:
    outcome = np.full(len(matching.truth.areas), int(Outcome.MISSED), np.int64)
    # The last assignment stands: an object that was found stays found, whatever else lies on it.
    for name, result in (
        (Kind.LOCALISATION, Outcome.LOCALISATION),
        (Kind.CONFUSED, Outcome.CONFUSED),
        (Kind.CORRECT, Outcome.FOUND),
    ):
        outcome[target[kind == name]] = result
    outcome[matching.truth.ignore] = Outcome.IGNORED
    return outcome
