"""One call for every assigner: ours serve a batch at once, mmdet's are called image by image."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models.task_modules import AssignResult, PointAssigner
from mmdet.models.task_modules import ATSSAssigner as MMDetATSSAssigner
from mmdet.models.task_modules import DynamicSoftLabelAssigner as MMDetDynamicSoftLabelAssigner
from mmdet.models.task_modules import SimOTAAssigner as MMDetSimOTAAssigner
from mmdet.models.task_modules import TaskAlignedAssigner as MMDetTaskAlignedAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.assigners.base import (
    AssignmentError,
    BatchAssigner,
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
    check_valid,
    require_predictions,
)
from atss_ext.assigners.dynamic_k import points_of

# How mmdet's assigners want their input; nothing in their signatures says it.
_BY_PROBABILITY = (MMDetTaskAlignedAssigner, MMDetSimOTAAssigner)
_BY_LOGITS = (MMDetDynamicSoftLabelAssigner,)
# Priors as (centre x, centre y, stride x, stride y).
_BY_POINTS = (MMDetSimOTAAssigner, MMDetDynamicSoftLabelAssigner)


def assign_batch(
    assigner: Any,
    priors: PyramidPriors,
    gts: PackedGts,
    valid: Tensor | None = None,
    predictions: Predictions | None = None,
) -> BatchAssignment:
    """One call for every assigner: ours serve the batch at once, mmdet's are called image by image.

    Args:
        assigner: a :class:`BatchAssigner`, or one with mmdet's ``assign``. Of mmdet's these are
            MaxIoUAssigner and CenterRegionAssigner (what the latter calls shadowed is background here, as in
            its ``gt_inds``), ATSSAssigner, TaskAlignedAssigner, SimOTAAssigner and DynamicSoftLabelAssigner.
        priors: of the pyramid; with strides for assigners that measure distances in them.
        gts: of the batch.
        valid: [B, N] bool, False for priors that take no part; they come back as -1.
        predictions: for assigners that :func:`needs_predictions`.

    Raises:
        AssignmentError: for an assigner that needs what it is not given, or gives a prior several gts.
        ValueError: when ``valid`` does not fit.
    """
    if isinstance(assigner, BatchAssigner):
        return assigner.assign_batch(priors, gts, valid, predictions)
    _check_call(assigner)
    check_valid(valid, priors, gts)
    instances = _candidates(assigner, priors, predictions)
    rows = [
        _assign_image(assigner, instances(image), priors, gts, image, valid)
        for image in range(gts.num_images)
    ]
    return BatchAssignment(torch.stack([row for row, _ in rows]), torch.stack([iou for _, iou in rows]))


def needs_predictions(assigner: Any) -> bool:
    """Whether an assigner goes by predicted scores and boxes: ours say so, of mmdet's it is known."""
    if isinstance(assigner, BatchAssigner):
        return getattr(assigner, 'needs_predictions', False)
    if isinstance(assigner, MMDetATSSAssigner):
        return assigner.alpha is not None
    return isinstance(assigner, (*_BY_PROBABILITY, *_BY_LOGITS))


def _candidates(
    assigner: Any, priors: PyramidPriors, predictions: Predictions | None
) -> Callable[[int], InstanceData]:
    """What one of mmdet's assigners chooses from, by image."""
    own = points_of(assigner, priors) if isinstance(assigner, _BY_POINTS) else priors.boxes
    if not needs_predictions(assigner):
        return lambda image: InstanceData(priors=own)
    found = require_predictions(assigner, predictions)
    wants_logits = not isinstance(assigner, _BY_PROBABILITY)
    if wants_logits and not found.are_logits:
        raise _unfit(type(assigner), 'needs logits as scores, not probabilities')

    def of_image(image: int) -> InstanceData:
        scores = found.scores[image]
        if found.are_logits and not wants_logits:
            scores = scores.sigmoid()
        return InstanceData(priors=own, scores=scores, bboxes=found.boxes[image])

    return of_image


def _assign_image(
    assigner: Any,
    candidates: InstanceData,
    priors: PyramidPriors,
    gts: PackedGts,
    image: int,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Calls one of mmdet's assigners for one image: assigned [N] and ious [N]."""
    boxes = priors.boxes
    own = boxes.new_ones(len(priors), dtype=torch.bool) if valid is None else valid[image]
    instances, ignored = _image_gts(gts, image)
    arguments: list[Any] = [instances, ignored]
    if _takes_levels(type(assigner)):
        arguments.insert(0, [int(level.sum()) for level in own.split(list(priors.level_sizes))])
    result = _call(assigner, candidates[own], arguments)
    assigned = result.gt_inds.new_full((len(priors),), -1)
    assigned[own] = result.gt_inds
    ious = boxes.new_zeros(len(priors))
    ious[own] = _positive_overlaps(result, boxes[own], instances.bboxes)
    return assigned, ious


def _image_gts(gts: PackedGts, image: int) -> tuple[InstanceData, InstanceData | None]:
    """The gts of one image and its ignore regions, as mmdet's assigners take them."""
    own = slice(*gts.offsets[image : image + 2].tolist())
    instances = InstanceData(bboxes=gts.boxes[own], labels=gts.labels[own])
    if gts.ignore_offsets is None or gts.ignore_boxes is None:
        return instances, None
    regions = slice(*gts.ignore_offsets[image : image + 2].tolist())
    return instances, InstanceData(bboxes=gts.ignore_boxes[regions])


def _call(assigner: Any, candidates: InstanceData, arguments: Sequence[Any]) -> AssignResult:
    """mmdet's ``assign``; refuses an assigner that reads or returns what it does not have here."""
    try:
        result = assigner.assign(candidates, *arguments)
    except AttributeError as error:
        if error.obj is not candidates:
            raise
        raise _unfit(type(assigner), f'needs pred_instances.{error.name}') from None
    if result.gt_inds.shape != candidates.priors.shape[:1]:
        shape = list(result.gt_inds.shape)
        raise _unfit(type(assigner), f'returns {shape} gts for {len(candidates)} priors instead of one each')
    return result


def _check_call(assigner: Any) -> None:
    """Refuses assigners that mmdet's plain ``assign(pred_instances, gt_instances, ...)`` does not fit.

    What is wrong with others shows when they are called.
    """
    kind = type(assigner)
    if isinstance(assigner, PointAssigner):  # would take x1, y1, x2 of a box for them without a word
        raise _unfit(kind, 'needs points with their stride as priors ([N, 3])')
    given = 4 if _takes_levels(kind) else 3
    try:
        inspect.signature(kind.assign).bind('self', *range(given))
    except TypeError as error:
        raise _unfit(kind, f'cannot be called with priors, gts and ignored gts ({error})') from None


def _unfit(kind: type, why: str) -> AssignmentError:
    return AssignmentError(
        f'{kind.__name__} {why}: choose an assigner of priors and gts, such as ATSSAssigner or MaxIoUAssigner'
    )


def _positive_overlaps(result: AssignResult, priors: Tensor, boxes: Tensor) -> Tensor:
    """[n]: the overlap of every positive prior with its gt, 0 elsewhere.

    Args:
        result: of mmdet; its ``max_overlaps`` may be None, as assigners that go by centres leave it.
        priors: [n, 4] xyxy.
        boxes: [M, 4] xyxy, the gts.
    """
    if result.max_overlaps is not None:
        overlaps = result.max_overlaps.to(priors.dtype)
    elif len(boxes):
        own = boxes[(result.gt_inds - 1).clamp(min=0)].to(priors.dtype)
        overlaps = bbox_overlaps(priors, own, is_aligned=True)
    else:
        overlaps = priors.new_zeros(len(priors))
    return overlaps.masked_fill(result.gt_inds <= 0, 0)


def _takes_levels(kind: Any) -> bool:
    """Whether ``assign`` wants the priors of every level counted, as ATSS's does."""
    return 'num_level_priors' in inspect.signature(kind.assign).parameters
