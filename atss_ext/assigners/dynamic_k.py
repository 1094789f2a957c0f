"""What the assigners that go by predictions share."""

from typing import Any

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from torch import Tensor

from atss_ext.assigners.base import BatchAssignment, PyramidPriors, require_strides, to_mmdet
from atss_ext.assigners.bbox_overlaps import is_plain_iou
from atss_ext.ops.reference import box_centers


def plain_iou(assigner: object, config: dict | Any) -> Any:
    """The calculator, which has to be plain IoU: it is computed inside of the op, pair by pair.

    Args:
        assigner: whose it is, for the sentence.
        config: of an IoU calculator, or one; None for the default.

    Raises:
        ValueError: for another.
    """
    calculator = MMDET_TASK_UTILS.build(config or {'type': 'BboxOverlaps2D'})
    if not is_plain_iou(calculator):
        raise ValueError(
            f'{type(assigner).__name__} computes plain IoU itself, iou_calculator cannot be {calculator}: '
            f"leave it out, or take mmdet's {type(assigner).__name__}"
        )
    return calculator


def require_positive(assigner: object, **numbers: float) -> None:
    """Refuses numbers of a constructor that are negative, and counts (integers) below 1.

    Raises:
        ValueError: naming the first.
    """
    for name, number in numbers.items():
        least = 1 if 'topk' in name else 0
        if not number >= least:
            raise ValueError(f'{name} of {type(assigner).__name__} must be at least {least}, got {number}')


def points_of(assigner: object, priors: PyramidPriors) -> Tensor:
    """Centre and stride of every prior, [N, 4] (x, y, stride x, stride y).

    Args:
        assigner: who asks, for the sentence.
        priors: with strides.

    Raises:
        AssignmentError: where the strides are missing.
    """
    pairs = priors.boxes.new_tensor([list(pair) for pair in require_strides(assigner, priors)])
    of_levels = [pair.expand(size, 2) for pair, size in zip(pairs, priors.level_sizes, strict=True)]
    return torch.cat([box_centers(priors.boxes), torch.cat(of_levels)], 1)


def to_mmdet_by_cost(assignment: BatchAssignment, labels: Tensor, no_overlap: float) -> AssignResult:
    """The one image of ``assignment`` as mmdet's assigners by cost report it.

    Args:
        assignment: of a batch of one.
        labels: [M] int64.
        no_overlap: what a prior without a gt has as its overlap; 0 in an image without a positive, which is
            one where no prior lies where a candidate may.
    """
    result = to_mmdet(assignment, labels)
    nobody = assignment.assigned[0] <= 0
    given = torch.where(nobody.all(), 0.0, no_overlap).to(assignment.ious.dtype)
    result.max_overlaps = torch.where(nobody, given, assignment.ious[0])
    return result
