"""Which images the errors are on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.errors.kinds import WRONG, Kinds, Outcome


@dataclass(frozen=True)
class WorstImage:
    """One image with errors.

    Attributes:
        row: of the image.
        cost: objects not found, plus the scores of the wrong detections.
        objects: rows of its objects, [G'].
        detections: rows of its detections that were not left out, [N'].
    """

    row: int
    cost: float
    objects: NDArray[np.int64]
    detections: NDArray[np.int64]


def worst_images(kinds: Kinds, limit: int) -> list[WorstImage]:
    """The images of the highest cost, at most ``limit``; images without errors are none."""
    matching = kinds.matching
    count = len(matching.truth.images)
    lost = ~np.isin(kinds.outcome, (Outcome.FOUND, Outcome.IGNORED))
    wrong = np.isin(kinds.kind, WRONG)
    cost = np.bincount(matching.truth.image[lost], minlength=count).astype(np.float64)
    scores = np.clip(matching.detections.scores, 0, None) * wrong
    cost += np.bincount(matching.detections.image, weights=scores, minlength=count)
    # JSON has no infinity, which few scores near the end of floats add up to.
    np.minimum(cost, np.finfo(np.float64).max, out=cost)
    order = np.argsort(-cost, kind='stable')[:limit]
    return [
        WorstImage(
            row,
            float(cost[row]),
            np.flatnonzero(matching.truth.image == row),
            np.flatnonzero((matching.detections.image == row) & (kinds.kind >= 0)),
        )
        for row in order.tolist()
        if cost[row] > 0
    ]
