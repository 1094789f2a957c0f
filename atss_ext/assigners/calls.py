"""One call for every assigner: ours serve a batch at once, mmdet's are called image by image."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules import AssignResult, PointAssigner
from mmdet.models.task_modules import ATSSAssigner as MMDetATSSAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.assigners.base import AssignmentError, BatchAssigner, BatchAssignment, PackedGts
from atss_ext.ops import GridLevel


def assign_batch(
    assigner: Any,
    priors: Tensor,
    level_sizes: Sequence[int],
    gts: PackedGts,
    valid: Tensor | None = None,
    priors_per_location: int = 1,
    grid: Sequence[GridLevel] | None = None,
) -> BatchAssignment:
    """One call for every assigner: ours serve the batch at once, mmdet's are called image by image.

    Args:
        assigner: a :class:`BatchAssigner`, or one with mmdet's ``assign`` that goes by prior boxes and gts
            alone. Of mmdet's these are ATSSAssigner (without ``alpha``), MaxIoUAssigner and
            CenterRegionAssigner; what the last calls shadowed is background here, as in its ``gt_inds``.
        priors: [N, 4] xyxy, pixels; all levels one after the other.
        level_sizes: L counts that sum to N.
        gts: of the batch.
        valid: [B, N] bool, False for priors that take no part; they come back as -1.
        priors_per_location: anchors at one location.
        grid: the levels from :func:`atss_ext.ops.find_grid`, where they are grids; may make it faster.

    Raises:
        AssignmentError: for an assigner that needs more than prior boxes and gts (predictions, say), or
            gives a prior several gts.
    """
    if isinstance(assigner, BatchAssigner):
        return assigner.assign_batch(priors, level_sizes, gts, valid, priors_per_location, grid)
    _check_call(assigner)
    rows = [
        _assign_image(assigner, priors, level_sizes, gts, image, None if valid is None else valid[image])
        for image in range(gts.num_images)
    ]
    return BatchAssignment(torch.stack([row for row, _ in rows]), torch.stack([iou for _, iou in rows]))


def _assign_image(
    assigner: Any,
    priors: Tensor,
    level_sizes: Sequence[int],
    gts: PackedGts,
    image: int,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Calls one of mmdet's assigners for one image: assigned [N] and ious [N]."""
    if valid is None:
        valid = priors.new_ones(priors.size(0), dtype=torch.bool)
    instances, ignored = _image_gts(gts, image)
    arguments: list[Any] = [instances, ignored]
    if _takes_levels(type(assigner)):
        arguments.insert(0, [int(level.sum()) for level in valid.split(list(level_sizes))])
    result = _call(assigner, InstanceData(priors=priors[valid]), arguments)
    assigned = result.gt_inds.new_full((priors.size(0),), -1)
    assigned[valid] = result.gt_inds
    ious = priors.new_zeros(priors.size(0))
    ious[valid] = _positive_overlaps(result, priors[valid], instances.bboxes)
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
    if isinstance(assigner, MMDetATSSAssigner) and assigner.alpha is not None:
        raise _unfit(kind, f'with alpha={assigner.alpha} needs pred_instances.scores and .bboxes')
    given = 4 if _takes_levels(kind) else 3
    try:
        inspect.signature(kind.assign).bind('self', *range(given))
    except TypeError as error:
        raise _unfit(kind, f'cannot be called with priors, gts and ignored gts ({error})') from None


def _unfit(kind: type, why: str) -> AssignmentError:
    return AssignmentError(
        f'{kind.__name__} {why}: choose an assigner that goes by prior boxes and gts alone, such as '
        'ATSSAssigner or MaxIoUAssigner'
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
