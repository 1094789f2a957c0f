"""What every prior learns from its gt, in plain PyTorch."""

from typing import NamedTuple

import torch
from torch import Tensor

from atss_ext.ops.reference.boxes import box_centers, compute_dtype


class Targets(NamedTuple):
    """What every prior of every image learns.

    Attributes:
        labels: [B, N] int64; ``num_classes`` for background and for priors that take no part.
        weights: [B, N]; 0 for ignored priors.
        positive: [B, N] bool.
        boxes: [B, N, 4] xyxy, pixels; the gt of a positive, elsewhere the prior itself (so that every
            value computed from it is finite).
        centerness: [B, N]; 0 where not positive.
        num_positives: scalar; positives summed over images, at least 1 an image (mmdet's ``avg_factor``).
    """

    labels: Tensor
    weights: Tensor
    positive: Tensor
    boxes: Tensor
    centerness: Tensor
    num_positives: Tensor


def centerness(centers: Tensor, boxes: Tensor) -> Tensor:
    """Centerness of points in boxes (FCOS, arXiv 1904.01355, eq. 3): [..., 2], [..., 4] -> [...] in [0, 1].

    0 for a point outside its box, where the formula has no value (mmdet asserts instead): such positives
    come from assigners that do not ask for the centre inside.
    """
    left_top, right_bottom = centers - boxes[..., :2], boxes[..., 2:] - centers
    shorter = torch.minimum(left_top, right_bottom).clamp(min=0)
    longer = torch.maximum(left_top, right_bottom).clamp(min=torch.finfo(boxes.dtype).tiny)
    ratio = shorter / longer
    return torch.sqrt(ratio[..., 0] * ratio[..., 1])


def gather_targets(
    priors: Tensor,
    assigned: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    offsets: Tensor,
    num_classes: int,
    pos_weight: float = -1,
) -> Targets:
    """The targets of an assignment; arguments and result of :func:`atss_ext.ops.gather_targets`."""
    dtype = compute_dtype(torch.promote_types(priors.dtype, gt_boxes.dtype))
    priors, gt_boxes = priors.to(dtype), gt_boxes.to(dtype)
    positive = assigned > 0
    labels = torch.full_like(assigned, num_classes)
    boxes = priors.expand(assigned.size(0), -1, -1).clone()
    if gt_boxes.size(0):
        index = (assigned - 1 + offsets[:-1, None]).masked_fill(~positive, 0)
        labels = torch.where(positive, gt_labels[index], labels)
        boxes = torch.where(positive[..., None], gt_boxes[index], boxes)
    weights = (assigned >= 0).to(dtype)
    if pos_weight > 0:
        weights = torch.where(positive, pos_weight, weights)
    centers = centerness(box_centers(priors), boxes).masked_fill(~positive, 0)
    num_positives = positive.sum(1).clamp(min=1).sum().to(dtype)
    return Targets(labels, weights, positive, boxes, centers, num_positives)
