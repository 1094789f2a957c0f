"""SimOTA's and RTMDet's assignment in plain PyTorch: priors of least cost, as many as IoUs add up to."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from atss_ext.ops.reference.assignment import to_assigned
from atss_ext.ops.reference.boxes import aligned_box_iou, box_centers, gt_image_ids
from atss_ext.ops.reference.predictions import CHUNK, gt_rows, probabilities, widest_dtype

CostRule = Literal['sim_ota', 'soft_label']
# Added to the cost of a prior that is not both inside a gt and near its centre (SimOTA).
OUTSIDE_COST = 100000.0
# Keeps log(0) out of the cost of boxes that do not overlap.
LOG_EPS = 1e-7
# The least logarithm that binary cross entropy counts with (torch).
LEAST_LOG = -100.0


class DynamicAssignment(NamedTuple):
    """An assignment by cost.

    Attributes:
        assigned: [B, N] int64: i+1 for gt i of the image, 0 background, -1 not valid.
        ious: [B, N], of the predicted box with its gt; 0 where not positive.
    """

    assigned: Tensor
    ious: Tensor


@dataclass(frozen=True)
class _Costs:
    """What the costs of a batch are made of; floats in the dtype of the computation, scores in their own."""

    points: Tensor
    scores: Tensor
    boxes: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_centers: Tensor
    image_ids: Tensor
    rule: CostRule
    radius: float
    iou_weight: float
    cls_weight: float
    are_logits: bool

    def places(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Whether priors lie inside gts, and near their centres (SimOTA): bool [G, N] each."""
        centers, gts = self.points[:, :2], self.gt_boxes[rows, None]
        inside = (torch.cat([centers - gts[..., :2], gts[..., 2:] - centers], -1) > 0).all(-1)
        if self.rule == 'soft_label':
            return inside, torch.zeros_like(inside)
        middle, reach = box_centers(gts), self.radius * self.points[:, 2:]
        near = torch.cat([centers - (middle - reach), middle + reach - centers], -1) > 0
        return inside, near.all(-1)

    def ious(self, rows: slice) -> Tensor:
        """[G, N], of predicted boxes with gts."""
        return aligned_box_iou(self.boxes[self.image_ids[rows]], self.gt_boxes[rows, None])

    def rows(self, rows: slice, background: Tensor) -> Tensor:
        """[G, N], costs of all priors of a gt's image; ``background`` float64 [B, N]."""
        own, dtype, ious = self.image_ids[rows], self.boxes.dtype, self.ious(rows)
        score = self.scores[own, :, self.gt_labels[rows]].to(dtype)
        overlap_cost = -torch.log(ious + LOG_EPS) * self.iou_weight
        if self.rule == 'sim_ota':
            p = probabilities(score, self.are_logits).double()
            change = torch.log1p(-p).clamp(min=LEAST_LOG) - torch.log(p).clamp(min=LEAST_LOG)
            inside, near = self.places(rows)
            cls_cost = (background[own] + change).to(dtype) * self.cls_weight
            return cls_cost + overlap_cost + (~(inside & near)) * OUTSIDE_COST
        entropy = (1 - ious) * score - logsigmoid(score)
        change = (entropy * (ious - score.sigmoid()).square()).double() - _soft_entropy(score)
        distance = (self.points[:, :2] - self.gt_centers[rows, None]).square().sum(-1).sqrt()
        center_cost = torch.pow(10, distance / self.points[:, 2] - self.radius)
        return (background[own] + change).to(dtype) + overlap_cost + center_cost

    def background(self) -> Tensor:
        """The cost of "no object" of every prior, summed over classes: float64 [B, N]."""
        images = []
        for image in self.scores:
            blocks = [
                self._no_object(rows.to(self.boxes.dtype)).sum(-1)
                for rows in image.split(max(1, CHUNK // image.size(1)))
            ]
            images.append(torch.cat(blocks))
        return torch.stack(images)

    def _no_object(self, scores: Tensor) -> Tensor:
        if self.rule == 'soft_label':
            return _soft_entropy(scores)
        p = probabilities(scores, self.are_logits).double()
        return -torch.log1p(-p).clamp(min=LEAST_LOG)


def _soft_entropy(scores: Tensor) -> Tensor:
    return (softplus(scores) * scores.sigmoid().square()).double()


def _candidates(costs: _Costs, num_images: int, valid: Tensor | None) -> Tensor:
    """Priors inside any gt of their image, or near its centre (SimOTA): bool [B, N]."""
    num_priors = costs.points.size(0)
    hit = torch.zeros((num_images, num_priors), dtype=torch.uint8, device=costs.points.device)
    for rows in gt_rows(costs.gt_boxes.size(0), num_priors):
        inside, near = costs.places(rows)
        either = (inside | near).to(torch.uint8)
        hit.scatter_reduce_(0, costs.image_ids[rows, None].expand_as(either), either, 'amax')
    return hit.bool() if valid is None else hit.bool() & valid


def dynamic_k(ious: Tensor, topk: int) -> Tensor:
    """How many priors a gt takes: [G, N], negative where no candidate is, -> [G] int64.

    The sum goes from the greatest IoU down, as mmdet's does: in float32 its order can decide.
    """
    greatest = ious.topk(min(topk, ious.size(1)), dim=1).values.clamp(min=0)
    total = greatest.new_zeros(len(greatest))
    for column in greatest.unbind(1):
        total = total + column
    return total.long().clamp(min=1)


def _choose(
    costs: _Costs, candidates: Tensor, background: Tensor, topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Priors [T, k] of least cost, whether each is taken, and the least cost of every prior [B, N]."""
    best = torch.full_like(background, float('inf'), dtype=costs.boxes.dtype)
    indices, taken = [], []
    for rows in gt_rows(costs.gt_boxes.size(0), costs.points.size(0)):
        own = costs.image_ids[rows]
        mine, cost = candidates[own], costs.rows(rows, background)
        known = cost.masked_fill(cost.isnan(), float('inf'))
        best.scatter_reduce_(0, own[:, None].expand_as(cost), known, 'amin')
        count = dynamic_k(costs.ious(rows).nan_to_num(-1).masked_fill(~mine, -1), topk)
        # NaN ranks last, so that an infinite cost still precedes what is no candidate.
        least, index = cost.masked_fill(~mine, float('nan')).sort(dim=1, stable=True)
        rank = torch.arange(min(topk, index.size(1)), device=index.device)
        indices.append(index[:, : len(rank)])
        taken.append((rank < count[:, None]) & ~least[:, : len(rank)].isnan())
    return torch.cat(indices), torch.cat(taken), best


def _settle(costs: _Costs, index: Tensor, taken: Tensor, background: Tensor, best: Tensor) -> Tensor:
    """Packed winner of every prior, T for none: [B, N]. One that several gts take goes to the cheapest."""
    num_gts, num_priors = index.size(0), background.size(1)
    gt = torch.arange(num_gts, device=index.device)[:, None]
    slot = (index + costs.image_ids[:, None] * num_priors).view(-1)
    claims = torch.zeros_like(background, dtype=torch.int64).view(-1)
    claims.scatter_add_(0, slot, taken.view(-1).long())
    first = torch.full_like(claims, num_gts)
    first.scatter_reduce_(0, slot, gt.expand_as(index).masked_fill(~taken, num_gts).view(-1), 'amin')
    cheapest = torch.full_like(background, num_gts, dtype=torch.int64)
    for rows in gt_rows(num_gts, num_priors):
        own = costs.image_ids[rows]
        dearer = costs.rows(rows, background) != best[own]
        holder = gt[rows].expand(-1, num_priors).masked_fill(dearer, num_gts)
        cheapest.scatter_reduce_(0, own[:, None].expand_as(holder), holder, 'amin')
    return torch.where(claims.view_as(cheapest) > 1, cheapest, first.view_as(cheapest))


def dynamic_k_assign(
    points: Tensor,
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    offsets: Tensor,
    rule: CostRule,
    topk: int,
    radius: float,
    iou_weight: float = 3.0,
    cls_weight: float = 1.0,
    valid: Tensor | None = None,
    gt_centers: Tensor | None = None,
    are_logits: bool = True,
) -> DynamicAssignment:
    """Assignment by cost; arguments and result of :func:`atss_ext.ops.dynamic_k_assign`."""
    dtype = widest_dtype(points, scores, boxes, gt_boxes)
    points, boxes, gt_boxes = (values.to(dtype) for values in (points, boxes, gt_boxes))
    num_images, num_priors, num_gts = offsets.numel() - 1, points.size(0), gt_boxes.size(0)
    nothing = points.new_zeros((num_images, num_priors))
    if not num_gts or not num_priors:
        winner = offsets.new_full((num_images, num_priors), num_gts)
        return DynamicAssignment(to_assigned(winner, offsets, num_gts, valid, None), nothing)
    centers = box_centers(gt_boxes) if gt_centers is None else gt_centers.to(dtype)
    image_ids = gt_image_ids(offsets, num_gts)
    costs = _Costs(
        points, scores, boxes, gt_boxes, gt_labels, centers, image_ids,
        rule, radius, iou_weight, cls_weight, are_logits,
    )  # fmt: skip
    background = costs.background()
    chosen = _choose(costs, _candidates(costs, num_images, valid), background, topk)
    winner = _settle(costs, *chosen[:2], background, chosen[2])
    ious = aligned_box_iou(boxes, gt_boxes[winner.clamp(max=num_gts - 1)])
    return DynamicAssignment(
        to_assigned(winner, offsets, num_gts, valid, None), torch.where(winner < num_gts, ious, nothing)
    )
