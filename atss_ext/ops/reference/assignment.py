"""The assignment in plain PyTorch: readable, and the oracle every kernel is held against.

Nothing here loops over images or gts or depends on how ties happen to fall in a library sort; only
:func:`ensure_positives` reads values back to the host.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from atss_ext.ops.reference.boxes import (
    aligned_box_iou,
    box_centers,
    compute_dtype,
    gt_image_ids,
    without_gradient,
)
from atss_ext.ops.reference.candidates import DISTANCE_CHUNK, Candidates, center_topk

# The centre of a positive lies more than this far inside its gt, in pixels (official ATSS code, mmdet).
CENTER_MARGIN = 0.01

BoxOverlap = Callable[[Tensor, Tensor], Tensor]


class Assignment(NamedTuple):
    """What :func:`atss_assign` returns.

    Attributes:
        assigned: [B, N] int64: i+1 for gt i of that image, 0 background, -1 ignored or not usable.
        ious: [B, N]: IoU of a positive prior with its gt, 0 elsewhere.
        thresholds: [T]: mean + std of each gt's candidate IoUs; inf for a gt without candidates.
        num_positives: [T] int64: priors each gt won.
    """

    assigned: Tensor
    ious: Tensor
    thresholds: Tensor
    num_positives: Tensor


def adaptive_threshold(candidate_ious: Tensor, valid: Tensor) -> Tensor:
    """Mean plus standard deviation (unbiased) of each gt's candidate IoUs (ATSS, Alg. 1, l. 8-10).

    Accumulated in float64 and rounded once, so that the value does not depend on the order of summation:
    candidates of equal IoU then meet the threshold exactly. One candidate has a deviation of 0, where the
    n - 1 of the textbook formula would give NaN and silently no positive.

    Args:
        candidate_ious: [T, C].
        valid: [T, C] bool.

    Returns:
        [T] in the dtype of ``candidate_ious``; inf where a gt has no candidate.
    """
    ious = candidate_ious.double().masked_fill(~valid, 0)
    count = valid.sum(1)
    mean = ious.sum(1) / count.clamp(min=1)
    deviation = (ious - mean[:, None]).masked_fill(~valid, 0)
    std = (deviation.square().sum(1) / (count - 1).clamp(min=1)).sqrt()
    return (mean + std).to(candidate_ious.dtype).masked_fill(count == 0, float('inf'))


def centers_inside(centers: Tensor, boxes: Tensor) -> Tensor:
    """Whether points lie more than :data:`CENTER_MARGIN` inside boxes: [..., 2], [..., 4] -> [...] bool."""
    left_top = centers - boxes[..., :2]
    right_bottom = boxes[..., 2:] - centers
    return torch.minimum(left_top, right_bottom).amin(-1) > CENTER_MARGIN


def resolve_conflicts(
    index: Tensor, ious: Tensor, positive: Tensor, image_ids: Tensor, num_images: int, num_priors: int
) -> tuple[Tensor, Tensor]:
    """Gives every prior to the gt that claims it with the highest IoU; of equal ones to the lower gt.

    Args:
        index: [T, C] int64, candidate priors.
        ious: [T, C].
        positive: [T, C] bool, the claims.
        image_ids: [T] int64.
        num_images: B.
        num_priors: N.

    Returns:
        winner [B, N] int64 (packed gt index, T where nobody claims) and ious [B, N] (0 where nobody).
    """
    num_gts = index.size(0)
    slot = (index + image_ids[:, None] * num_priors).view(-1)
    claim = ious.masked_fill(~positive, -1).view(-1)
    best = ious.new_full((num_images * num_priors,), -1).scatter_reduce_(0, slot, claim, 'amax')
    gt = torch.arange(num_gts, device=index.device)[:, None].expand_as(index).reshape(-1)
    wins = positive.view(-1) & (claim == best[slot])
    winner = index.new_full((num_images * num_priors,), num_gts)
    winner.scatter_reduce_(0, slot, gt.masked_fill(~wins, num_gts), 'amin')
    return winner.view(num_images, num_priors), best.clamp_(min=0).view(num_images, num_priors)


def box_iof(priors: Tensor, boxes: Tensor) -> Tensor:
    """Share of each prior's own area that lies in each box (IoF): [N, 4], [s, 4] -> [N, s]."""
    return aligned_box_iou(priors[:, None], boxes[None], 'iof')


def ignored_priors(
    priors: Tensor,
    ignore_boxes: Tensor,
    ignore_offsets: Tensor,
    offsets: Tensor,
    iof_thr: float,
    iof: BoxOverlap = box_iof,
) -> Tensor:
    """Priors of which more than ``iof_thr`` of the area lies in one ignore box: [B, N] bool.

    An image without gts has none, as in mmdet: all its priors are background.

    Args:
        priors: [N, 4] xyxy.
        ignore_boxes: [S, 4] xyxy, packed over the batch.
        ignore_offsets: [B+1] int64.
        offsets: [B+1] int64, of the gts.
        iof_thr: share of the prior's own area (IoF, intersection over foreground).
        iof: the share, ``([N, 4], [s, 4]) -> [N, s]``.
    """
    num_priors = priors.size(0)
    hit = torch.zeros((offsets.numel() - 1, num_priors), dtype=torch.uint8, device=priors.device)
    rows = max(1, DISTANCE_CHUNK // max(1, num_priors))
    image_ids = gt_image_ids(ignore_offsets, ignore_boxes.size(0))
    for boxes, images in zip(ignore_boxes.split(rows), image_ids.split(rows), strict=True):
        inside = (iof(priors, boxes) > iof_thr).t().to(torch.uint8)
        hit.scatter_reduce_(0, images[:, None].expand_as(inside), inside, 'amax')
    return hit.bool() & (offsets.diff() > 0)[:, None]


def candidate_ious(
    candidates: Candidates, priors: Tensor, gt_boxes: Tensor, aligned_iou: BoxOverlap
) -> Tensor:
    """IoU of every gt with its candidates: [T, C], in the dtype of ``priors``."""
    pairs = priors[candidates.prior_index].view(-1, 4)
    gts = gt_boxes[:, None].expand(-1, candidates.prior_index.size(1), -1).reshape(-1, 4)
    return aligned_iou(pairs, gts).to(priors.dtype).view_as(candidates.prior_index)


def to_assigned(
    winner: Tensor, offsets: Tensor, num_gts: int, valid: Tensor | None, ignored: Tensor | None
) -> Tensor:
    """Packed winners [B, N] (``num_gts`` for none) to the assignment's numbering: gt + 1, 0, -1.

    A positive inside an ignore region stays positive, as in mmdet.
    """
    background = torch.zeros_like(winner)
    if ignored is not None:
        background.masked_fill_(ignored, -1)
    if valid is not None:
        background.masked_fill_(~valid, -1)
    return torch.where(winner < num_gts, winner - offsets[:-1, None] + 1, background)


def assign_candidates(
    candidates: Candidates,
    priors: Tensor,
    gt_boxes: Tensor,
    offsets: Tensor,
    valid: Tensor | None = None,
    ignored: Tensor | None = None,
    aligned_iou: BoxOverlap = aligned_box_iou,
    ensure_positive: bool = False,
) -> Assignment:
    """Algorithm 1 from line 7 on: thresholds, positives and conflicts of given candidates.

    The result carries no gradient to the boxes.

    Args:
        candidates: of every gt, as :func:`center_topk` returns them.
        priors: [N, 4] xyxy, float32 or float64.
        gt_boxes: [T, 4] xyxy, dtype of ``priors``.
        offsets: [B+1] int64.
        valid: [B, N] bool; False priors come back as -1.
        ignored: [B, N] bool; True priors come back as -1 unless positive.
        aligned_iou: the overlap of prior i with gt i, ``([n, 4], [n, 4]) -> [n]``.
        ensure_positive: see :func:`atss_ext.ops.reference.assignment.ensure_positives`.
    """
    priors, gt_boxes = without_gradient(priors), without_gradient(gt_boxes)
    num_images, num_priors, num_gts = offsets.numel() - 1, priors.size(0), gt_boxes.size(0)
    image_ids = gt_image_ids(offsets, num_gts)
    ious = candidate_ious(candidates, priors, gt_boxes, aligned_iou)
    inside = centers_inside(box_centers(priors)[candidates.prior_index], gt_boxes[:, None])
    thresholds = adaptive_threshold(ious, candidates.valid)
    positive = (ious >= thresholds[:, None]) & inside & candidates.valid
    winner, prior_ious = resolve_conflicts(
        candidates.prior_index, ious, positive, image_ids, num_images, num_priors
    )
    if ensure_positive:
        ensure_positives(winner, prior_ious, candidates, ious, inside, image_ids)
    return Assignment(
        to_assigned(winner, offsets, num_gts, valid, ignored),
        prior_ious,
        thresholds,
        count_wins(winner, num_gts),
    )


def _nobody(
    priors: Tensor, num_gts: int, offsets: Tensor, valid: Tensor | None, ignored: Tensor | None
) -> Assignment:
    """The assignment where there are no gts, or no priors to give them."""
    num_images, num_priors = offsets.numel() - 1, priors.size(0)
    winner = offsets.new_full((num_images, num_priors), num_gts)
    return Assignment(
        to_assigned(winner, offsets, num_gts, valid, ignored),
        priors.new_zeros((num_images, num_priors)),
        priors.new_full((num_gts,), float('inf')),
        offsets.new_zeros(num_gts),
    )


def atss_assign(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    offsets: Tensor,
    k: int,
    valid: Tensor | None = None,
    ignore_boxes: Tensor | None = None,
    ignore_offsets: Tensor | None = None,
    ignore_iof_thr: float = 0,
    ensure_positive: bool = False,
) -> Assignment:
    """The whole of Algorithm 1 for a batch; arguments and result of :func:`atss_ext.ops.atss_assign`."""
    dtype = compute_dtype(torch.promote_types(priors.dtype, gt_boxes.dtype))
    priors, gt_boxes = priors.to(dtype), gt_boxes.to(dtype)
    ignored = None
    if ignore_boxes is not None and ignore_offsets is not None and ignore_iof_thr > 0:
        boxes = ignore_boxes.to(dtype)
        ignored = ignored_priors(priors, boxes, ignore_offsets, offsets, ignore_iof_thr)
    num_gts = gt_boxes.size(0)
    if num_gts == 0 or priors.size(0) == 0:
        return _nobody(priors, num_gts, offsets, valid, ignored)
    candidates = center_topk(priors, level_sizes, gt_boxes, offsets, k, valid, ignored)
    return assign_candidates(
        candidates, priors, gt_boxes, offsets, valid, ignored, ensure_positive=ensure_positive
    )


def count_wins(winner: Tensor, num_gts: int) -> Tensor:
    """How many priors each packed gt won: winner [B, N] (``num_gts`` for none) -> [T] int64."""
    counts = winner.new_zeros(num_gts + 1)
    counts.scatter_add_(0, winner.view(-1), torch.ones_like(winner).view(-1))
    return counts[:num_gts]


def ensure_positives(
    winner: Tensor,
    prior_ious: Tensor,
    candidates: Candidates,
    ious: Tensor,
    inside: Tensor,
    image_ids: Tensor,
) -> None:
    """Gives every gt left without a positive its best candidate, in place; not part of the paper.

    A gt can end with none: mean + std may exceed its best IoU, no centre may lie inside a tiny gt, or
    others win all its priors. Such gts, in order, take the candidate that lies inside them and has the
    highest IoU (nearest first where equal; outside ones last) among those nobody holds or whose holder has
    another. Only where all are some gt's last prior does a gt stay without. Reads values back to the host.

    Args:
        winner: [B, N] int64, packed gt of every prior, T for none.
        prior_ious: [B, N].
        candidates: of all gts.
        ious: [T, C].
        inside: [T, C] bool, centre of the candidate inside the gt.
        image_ids: [T] int64.
    """
    num_gts = ious.size(0)
    counts = count_wins(winner, num_gts)
    for gt in (counts == 0).nonzero()[:, 0].tolist():
        image = image_ids[gt]
        order = (inside[gt] * 2 + ious[gt]).masked_fill(~candidates.valid[gt], -1)
        order = order.argsort(descending=True, stable=True)
        order = order[candidates.valid[gt, order]]
        holder = winner[image, candidates.prior_index[gt, order]]
        free = (holder == num_gts) | (counts[holder.clamp(max=num_gts - 1)] > 1)
        choice = order[free][:1]
        counts[holder[free][:1][holder[free][:1] < num_gts]] -= 1
        winner[image, candidates.prior_index[gt, choice]] = gt
        prior_ious[image, candidates.prior_index[gt, choice]] = ious[gt, choice]
        counts[gt] += choice.numel()
