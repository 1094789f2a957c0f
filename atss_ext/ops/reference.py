"""The assignment in plain PyTorch: public, readable, and the oracle every kernel is held against.

Nothing here loops over images or gts, reads a value back to the host or depends on how ties happen to
fall in a library sort. Letters: B images, T gts of the batch (packed), N priors, L levels, C candidates.

Half precision is computed in float32, because 11 bits cannot order the distances of a large image.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# The centre of a positive lies at least this far inside its gt, in pixels (official ATSS code, mmdet).
CENTER_MARGIN = 0.01
# The distance given to priors inside an ignore region: behind every real one, still selectable (mmdet).
IGNORED_DISTANCE = 1e8
# Keeps 0/0 out of IoUs of zero-area boxes (mmdet's ``bbox_overlaps``).
IOU_EPS = 1e-6
# Entries of a distance matrix held at a time, so that memory does not grow with T x N.
DISTANCE_CHUNK = 1 << 22


BoxOverlap = Callable[[Tensor, Tensor], Tensor]


class Candidates(NamedTuple):
    """The nearest priors of every gt, level by level.

    Attributes:
        prior_index: [T, C] int64, index of the prior within the image; 0 where not ``valid``.
        valid: [T, C] bool, False where a level has fewer usable priors than asked for.
    """

    prior_index: Tensor
    valid: Tensor


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


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype an assignment is computed in: float64 stays, all else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def aligned_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of box i with box i, operation by operation as mmdet's ``bbox_overlaps`` computes it.

    Args:
        boxes1: [..., 4] xyxy, pixels.
        boxes2: [..., 4] xyxy, pixels.

    Returns:
        [...] IoUs in [0, 1]; a zero-area pair gives 0.
    """
    area1 = (boxes1[..., 2] - boxes1[..., 0]) * (boxes1[..., 3] - boxes1[..., 1])
    area2 = (boxes2[..., 2] - boxes2[..., 0]) * (boxes2[..., 3] - boxes2[..., 1])
    size = torch.minimum(boxes1[..., 2:], boxes2[..., 2:]) - torch.maximum(boxes1[..., :2], boxes2[..., :2])
    size = size.clamp(min=0)
    overlap = size[..., 0] * size[..., 1]
    return overlap / (area1 + area2 - overlap).clamp(min=IOU_EPS)


def box_centers(boxes: Tensor) -> Tensor:
    """Centres of xyxy boxes: [..., 4] -> [..., 2] (x, y)."""
    return (boxes[..., :2] + boxes[..., 2:4]) / 2


def gt_image_ids(offsets: Tensor, num_gts: int) -> Tensor:
    """The image of every packed gt: offsets [B+1] -> [T] int64, without reading ``offsets`` back."""
    gt = torch.arange(num_gts, device=offsets.device)
    return torch.searchsorted(offsets[1:].contiguous(), gt, right=True)


def _nearest(distances: Tensor, k: int) -> Tensor:
    """Indices [T, k] of the k smallest of ``distances`` [T, n] >= 0; of equal ones the lower index.

    ``torch.topk`` leaves the order of ties open. The bits of a non-negative float32 order like an
    integer, so distance and index packed into one int64 make every key unique.
    """
    if distances.dtype == torch.float64:
        return distances.sort(dim=1, stable=True).indices[:, :k]
    column = torch.arange(distances.size(1), device=distances.device)
    keys = (distances.view(torch.int32).to(torch.int64) << 32) | column
    return keys.topk(k, dim=1, largest=False, sorted=True).values & 0xFFFFFFFF


def _level_candidates(
    prior_centers: Tensor,
    gt_centers: Tensor,
    image_ids: Tensor,
    k: int,
    valid: Tensor | None,
    ignored: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """:func:`center_topk` on one level: indices within the level [T, k] and whether they may be used."""
    distances = (prior_centers[None] - gt_centers[:, None]).square_().sum(-1)  # [T, n]
    if ignored is not None:
        distances.masked_fill_(ignored[image_ids], IGNORED_DISTANCE**2)
    if valid is not None:
        distances.masked_fill_(~valid[image_ids], float('inf'))
    nearest = _nearest(distances, k)
    return nearest, distances.gather(1, nearest) < float('inf')


def center_topk(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    image_ids: Tensor,
    k: int,
    valid: Tensor | None = None,
    ignored: Tensor | None = None,
) -> Candidates:
    """The k priors of every level whose centres are nearest (L2) to each gt's centre (ATSS, Alg. 1, l. 3-6).

    Args:
        priors: [N, 4] xyxy, float32 or float64; all levels one after the other.
        level_sizes: L counts that sum to N.
        gt_boxes: [T, 4] xyxy.
        image_ids: [T] int64, the image of every gt.
        k: candidates a level; a smaller level gives all it has.
        valid: [B, N] bool; False priors (in the padding, say) can never be candidates.
        ignored: [B, N] bool; True priors come after all others, as in mmdet.

    Returns:
        :class:`Candidates` with C = sum over levels of min(k, level size): level by level, nearest first;
        of equal distances the lower prior index first.
    """
    prior_centers, gt_centers = box_centers(priors), box_centers(gt_boxes)
    index, usable, start = [], [], 0
    for size in level_sizes:
        level = slice(start, start + size)
        rows = max(1, DISTANCE_CHUNK // max(1, size))
        chunks = [
            _level_candidates(
                prior_centers[level],
                centers,
                images,
                min(k, size),
                None if valid is None else valid[:, level],
                None if ignored is None else ignored[:, level],
            )
            for centers, images in zip(gt_centers.split(rows), image_ids.split(rows), strict=True)
        ]
        index.append(torch.cat([nearest for nearest, _ in chunks]) + start)
        usable.append(torch.cat([ok for _, ok in chunks]))
        start += size
    found, usable_all = torch.cat(index, 1), torch.cat(usable, 1)
    return Candidates(found.masked_fill(~usable_all, 0), usable_all)


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
    area = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
    left_top = torch.maximum(priors[:, None, :2], boxes[None, :, :2])
    size = (torch.minimum(priors[:, None, 2:4], boxes[None, :, 2:]) - left_top).clamp_(min=0)
    return size[..., 0] * size[..., 1] / area.clamp(min=IOU_EPS)[:, None]


def ignored_priors(
    priors: Tensor,
    ignore_boxes: Tensor,
    ignore_image_ids: Tensor,
    num_images: int,
    iof_thr: float,
    iof: BoxOverlap = box_iof,
) -> Tensor:
    """Priors of which more than ``iof_thr`` of the area lies in one ignore box: [B, N] bool.

    Args:
        priors: [N, 4] xyxy.
        ignore_boxes: [S, 4] xyxy, packed over the batch.
        ignore_image_ids: [S] int64.
        num_images: B.
        iof_thr: share of the prior's own area (IoF, intersection over foreground).
        iof: the share, ``([N, 4], [s, 4]) -> [N, s]``.
    """
    num_priors = priors.size(0)
    hit = torch.zeros((num_images, num_priors), dtype=torch.uint8, device=priors.device)
    rows = max(1, DISTANCE_CHUNK // max(1, num_priors))
    for boxes, images in zip(ignore_boxes.split(rows), ignore_image_ids.split(rows), strict=True):
        inside = (iof(priors, boxes) > iof_thr).t().to(torch.uint8)
        hit.scatter_reduce_(0, images[:, None].expand_as(inside), inside, 'amax')
    return hit.bool()


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


def atss_assign(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    offsets: Tensor,
    k: int,
    valid: Tensor | None = None,
    ignored: Tensor | None = None,
    aligned_iou: BoxOverlap = aligned_box_iou,
    ensure_positive: bool = False,
) -> Assignment:
    """Adaptive training sample selection for a whole batch (ATSS, Algorithm 1).

    Args:
        priors: [N, 4] xyxy, pixels, any float dtype; all levels one after the other.
        level_sizes: L counts that sum to N.
        gt_boxes: [T, 4] xyxy, pixels; the gts of all images one after the other.
        offsets: [B+1] int64; image b owns ``gt_boxes[offsets[b]:offsets[b + 1]]``.
        k: candidates a level.
        valid: [B, N] bool; False priors take no part and come back as -1.
        ignored: [B, N] bool, see :func:`ignored_priors`; such priors come back as -1 unless positive.
        aligned_iou: the overlap of prior i with gt i, ``([n, 4], [n, 4]) -> [n]``.
        ensure_positive: see :func:`ensure_positives`.

    Returns:
        :class:`Assignment`.
    """
    num_images, num_priors, num_gts = offsets.numel() - 1, priors.size(0), gt_boxes.size(0)
    dtype = compute_dtype(torch.promote_types(priors.dtype, gt_boxes.dtype))
    priors, gt_boxes = priors[:, :4].to(dtype), gt_boxes.to(dtype)
    if num_gts == 0 or num_priors == 0:
        winner = offsets.new_full((num_images, num_priors), num_gts)
        return Assignment(
            to_assigned(winner, offsets, num_gts, valid, ignored),
            priors.new_zeros((num_images, num_priors)),
            priors.new_full((num_gts,), float('inf')),
            offsets.new_zeros(num_gts),
        )
    image_ids = gt_image_ids(offsets, num_gts)
    candidates = center_topk(priors, level_sizes, gt_boxes, image_ids, k, valid, ignored)
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
