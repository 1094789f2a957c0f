"""What mmdet's call for one image hands over, as a batch of one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.assigners.base import PackedGts, Predictions, PyramidPriors, require_predictions
from atss_ext.ops.reference import box_centers


def image_batch(
    pred_instances: InstanceData,
    gt_instances: InstanceData,
    gt_instances_ignore: InstanceData | None = None,
    level_sizes: Sequence[int] | None = None,
    by_location: bool = False,
) -> tuple[PyramidPriors, PackedGts]:
    """The priors and the packed gts of one image.

    Args:
        pred_instances: with ``priors`` [N, 4] or more columns, xyxy first.
        gt_instances: with ``bboxes`` [M, 4] and ``labels`` [M].
        gt_instances_ignore: with ``bboxes``, or None.
        level_sizes: L counts that sum to N; None counts all priors as one level.
        by_location: whether to find out how many anchors a location has.
    """
    boxes = get_box_tensor(pred_instances.priors)[:, :4]
    priors = PyramidPriors(boxes, [len(boxes)] if level_sizes is None else level_sizes)
    if by_location and len(priors):
        priors = replace(priors, per_location=anchors_per_location(boxes, priors.level_sizes))
    ignored = None if gt_instances_ignore is None else [gt_instances_ignore]
    return priors, PackedGts.from_instances([gt_instances], ignored)


def image_predictions(assigner: Any, pred_instances: InstanceData, are_logits: bool = True) -> Predictions:
    """Scores and boxes of one image as those of a batch of one.

    Raises:
        AssignmentError: where ``pred_instances`` has no ``scores`` or ``bboxes``.
    """
    if 'scores' not in pred_instances or 'bboxes' not in pred_instances:
        return require_predictions(assigner, None)
    boxes = get_box_tensor(pred_instances.bboxes)
    return Predictions(pred_instances.scores[None], boxes[None], are_logits)


def anchors_per_location(priors: Tensor, level_sizes: Sequence[int]) -> int:
    """How many priors of a level share a centre: the longest run of neighbours that do.

    mmdet's call does not say, and with ``allowed_border`` its heads have already left out some anchors of
    the locations near a border. Priors of one location are neighbours in mmdet's order; their centres agree
    up to rounding.
    """
    boxes = priors.float()
    centers = box_centers(boxes)
    room = 1e-3 * (boxes[1:, 2:] - boxes[1:, :2]).amax(1).clamp(min=1)
    breaks = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    breaks[1:] = (centers[1:] - centers[:-1]).abs().amax(1) >= room
    starts = torch.tensor([0, *level_sizes]).cumsum(0)[:-1]
    breaks[starts[starts < len(boxes)].to(boxes.device)] = True
    return int(breaks.cumsum(0).bincount().max())
