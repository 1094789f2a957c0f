"""Costs and metrics of predictions for gts, in plain PyTorch, and TOOD's assignment.

Rows of gts are made some at a time, and a class axis never: a gt's target differs from "no object" in its own
class alone, so that one sum over classes a prior serves all gts.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from atss_ext.ops.reference.assignment import centers_inside, resolve_conflicts, to_assigned
from atss_ext.ops.reference.boxes import aligned_box_iou, box_centers, compute_dtype, gt_image_ids

# Values of a block of rows.
CHUNK = 1 << 21


class AlignedAssignment(NamedTuple):
    """An assignment by TOOD's alignment.

    Attributes:
        assigned: [B, N] int64: i+1 for gt i of the image, 0 background, -1 not valid.
        ious: [B, N], of the predicted box with its gt; 0 where not positive.
        metrics: [B, N], the alignment metric; 0 where not positive.
    """

    assigned: Tensor
    ious: Tensor
    metrics: Tensor


def widest_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where one of them is, else float32."""
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return compute_dtype(torch.float64 if wide else torch.float32)


def gt_rows(num_gts: int, num_priors: int) -> Iterator[slice]:
    """Slices of packed gts whose rows over all priors make a block."""
    rows = max(1, CHUNK // max(1, num_priors))
    return (slice(start, min(start + rows, num_gts)) for start in range(0, num_gts, rows))


def probabilities(scores: Tensor, are_logits: bool) -> Tensor:
    """Scores as probabilities; what is given as one counts as the nearest of [0, 1]."""
    return scores.sigmoid() if are_logits else scores.clamp(0, 1)


def task_aligned_assign(
    priors: Tensor,
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    offsets: Tensor,
    valid: Tensor | None = None,
    topk: int = 13,
    alpha: float = 1,
    beta: float = 6,
    are_logits: bool = True,
) -> AlignedAssignment:
    """TOOD's assignment; arguments and result of :func:`atss_ext.ops.task_aligned_assign`."""
    dtype = widest_dtype(priors, scores, boxes, gt_boxes)
    priors, boxes, gt_boxes = (values.to(dtype) for values in (priors, boxes, gt_boxes))
    num_images, num_priors, num_gts = offsets.numel() - 1, priors.size(0), gt_boxes.size(0)
    if not num_gts or not num_priors:
        winner = offsets.new_full((num_images, num_priors), num_gts)
        nothing = priors.new_zeros((num_images, num_priors))
        assigned = to_assigned(winner, offsets, num_gts, valid, None)
        return AlignedAssignment(assigned, nothing, torch.zeros_like(nothing))
    image_ids = gt_image_ids(offsets, num_gts)
    claims = []
    for rows in gt_rows(num_gts, num_priors):
        own = image_ids[rows]
        ious = aligned_box_iou(boxes[own], gt_boxes[rows, None])
        score = probabilities(scores[own, :, gt_labels[rows]].to(dtype), are_logits)
        metric = score**alpha * ious**beta
        taking_part = metric > 0 if valid is None else (metric > 0) & valid[own]
        metric = metric.masked_fill(~taking_part, 0)
        metric, index = (best[:, :topk] for best in metric.sort(dim=1, descending=True, stable=True))
        claims.append((metric, index, ious.gather(1, index)))
    metric, index, ious = (torch.cat(parts) for parts in zip(*claims, strict=True))
    inside = centers_inside(box_centers(priors)[index], gt_boxes[:, None])
    positive = inside & (metric > 0)
    winner, prior_ious = resolve_conflicts(index, ious, positive, image_ids, num_images, num_priors)
    slot = index + image_ids[:, None] * num_priors
    gt = torch.arange(num_gts, device=index.device)[:, None]
    won = metric.masked_fill(~positive | (winner.view(-1)[slot] != gt), 0)
    metrics = torch.zeros_like(prior_ious).view(-1).scatter_reduce_(0, slot.view(-1), won.view(-1), 'amax')
    assigned = to_assigned(winner, offsets, num_gts, valid, None)
    return AlignedAssignment(assigned, prior_ious, metrics.view_as(prior_ious))
