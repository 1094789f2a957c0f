"""Samples of a model as columns of detections: what both metrics share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.coco.table import Found, Truth
from atss_ext.registry import DATASETS


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


def check_metric(metric: str | Sequence[str]) -> list[str]:
    """The chosen kinds of regions; raises ValueError for others than 'bbox' and 'segm'."""
    chosen = [metric] if isinstance(metric, str) else list(metric)
    if not chosen or set(chosen) - {'bbox', 'segm'}:
        raise ValueError(f'metric must be some of bbox, segm, but is {metric!r}.')
    return chosen


def check_limits(name: str, limits: Sequence[int]) -> list[int]:
    """Limits of detections in ascending order; raises ValueError for none, or one below 1."""
    if not limits or min(limits) < 1:
        raise ValueError(f'{name} must be numbers of at least 1, but is {limits!r}.')
    return sorted(set(limits))


def classes_of(dataset: str) -> tuple[str, ...]:
    """The classes of a registered dataset, as 'mmdet.CocoDataset'; raises ValueError where it has none."""
    classes = getattr(DATASETS.get(dataset), 'METAINFO', {}).get('classes')
    if not classes:
        raise ValueError(f'classes must be names or a dataset that has classes, but is {dataset!r}.')
    return tuple(classes)


def image_number(truth: Truth, image: Any) -> int:
    """The number of a tested image; raises DataError where the file does not have it."""
    if image not in truth.image_numbers:
        raise DataError(
            f"image {image} was tested, but {truth.ann_file} does not have it; name the dataset's file as "
            'the '
            "metric's ann_file"
        )
    return truth.image_numbers[image]


def as_row(truth: Truth, sample: Mapping[str, Any], categories: NDArray[np.int64] | None, masks: bool) -> Row:
    """Take the detections of a sample.

    Args:
        truth: knows the image.
        sample: ``img_id`` and ``pred_instances`` with ``bboxes`` (xyxy [N, 4], pixels), ``scores`` [N],
            perhaps ``masks`` (bool [N, H, W], or N run lengths) and ``mask_scores`` [N].
        categories: numbers [N], 0 for detections to leave out; None where names do not count.
        masks: whether masks are needed.

    Raises:
        DataError: an unknown image, no masks, or numbers that are not finite.
    """
    image, found = image_number(truth, sample['img_id']), sample['pred_instances']
    boxes = array(found['bboxes']).astype(np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    scores = array(found['scores']).astype(np.float64)
    others = array(found['mask_scores']).astype(np.float64) if 'mask_scores' in found else scores
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all() and np.isfinite(others).all()):
        raise DataError(
            f'image {sample["img_id"]} has a box or a score that is not finite; the model has diverged'
        )
    regions = _run_lengths(sample['img_id'], found) if masks else None
    numbers = np.ones(len(scores), np.int64) if categories is None else categories
    kept = np.flatnonzero(numbers)
    chosen = None if regions is None else [regions[place] for place in kept]
    columns = Found(np.full(len(kept), image), numbers[kept], scores[kept], boxes[kept], chosen)
    return Row(image, columns, others[kept])


def join_rows(rows: Sequence[Row], truth: Truth) -> tuple[Found, NDArray[np.float64]]:
    """All detections and their scores as masks, [N]; raises DataError where an image was tested twice."""
    if len({row.image for row in rows}) < len(rows):
        raise DataError(
            f'an image of {truth.ann_file} was tested twice, which would count its detections twice; test '
            'each '
            'image once'
        )
    return Found.join([row.found for row in rows]), np.concatenate(
        [np.zeros(0), *(row.mask_scores for row in rows)]
    )


def array(values: Any) -> NDArray[Any]:
    """A tensor or a list as an array on the CPU."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _run_lengths(image: Any, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    if 'masks' not in found:
        raise DataError(f"image {image} has no masks, which metric='segm' needs; choose metric='bbox'")
    masks = found['masks']
    if not isinstance(masks, torch.Tensor | np.ndarray):
        return list(masks)
    encoded: list[dict[str, Any]] = rle.encode(
        np.asfortranarray(array(masks).astype(np.uint8).transpose(1, 2, 0))
    )
    return encoded
