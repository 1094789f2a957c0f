"""Samples of a model as columns of detections: what both metrics share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.coco.table import Found, Truth
from atss_ext.evaluation.samples import (
    boxes_of,
    check_image,
    check_lengths,
    check_once,
    run_lengths,
    scores_of,
)


@dataclass(frozen=True)
class Row:
    """The detections of one image; no tuple, which mmengine would take apart while it collects.

    Attributes:
        image: the image's number in the truth.
        found: the detections, with the scores of boxes.
        mask_scores: [N]; the scores of boxes where the model has no others.
    """

    image: int
    found: Found
    mask_scores: NDArray[np.float64]


def check_limits(name: str, limits: Sequence[int]) -> list[int]:
    """Limits of detections in ascending order; raises ValueError for none, or one below 1."""
    if not limits or min(limits) < 1:
        raise ValueError(f'{name} must be numbers of at least 1, but is {limits!r}.')
    return sorted(set(limits))


def as_row(truth: Truth, sample: Mapping[str, Any], categories: NDArray[np.int64] | None, masks: bool) -> Row:
    """Take the detections of a sample.

    Args:
        truth: knows the image.
        sample: ``img_id`` and ``pred_instances`` with ``bboxes`` (xyxy [N, 4], pixels), ``scores`` [N],
            perhaps ``masks`` (bool [N, H, W], or N run lengths or polygons) and ``mask_scores`` [N].
        categories: numbers [N], 0 for detections to leave out; None where names do not count.
        masks: whether masks are needed.

    Raises:
        DataError: an unknown image, no masks or such of another size, numbers that are not finite, or fields
            that are not as many.
    """
    identity, found = sample['img_id'], sample['pred_instances']
    check_image(identity, truth.image_numbers, truth.ann_file)
    image = truth.image_numbers[identity]
    boxes, scores = boxes_of(found, identity), scores_of(found, 'scores', identity)
    others = scores_of(found, 'mask_scores', identity) if 'mask_scores' in found else scores
    regions = run_lengths(identity, found, truth.sizes[image - 1]) if masks else None
    numbers = np.ones(len(scores), np.int64) if categories is None else categories
    fields = {} if regions is None else {'masks': regions}
    check_lengths(identity, boxes=boxes, scores=scores, labels=numbers, mask_scores=others, **fields)
    kept = np.flatnonzero(numbers)
    chosen = None if regions is None else [regions[place] for place in kept]
    columns = Found(np.full(len(kept), image), numbers[kept], scores[kept], boxes[kept], chosen)
    return Row(image, columns, others[kept])


def join_rows(rows: Sequence[Row], truth: Truth) -> tuple[Found, NDArray[np.float64]]:
    """All detections and their scores as masks, [N]; raises DataError where an image was tested twice."""
    check_once([row.image for row in rows], truth.ann_file)
    return Found.join([row.found for row in rows]), np.concatenate(
        [np.zeros(0), *(row.mask_scores for row in rows)]
    )
