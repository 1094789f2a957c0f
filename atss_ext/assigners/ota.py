"""Optimal transport assignment (OTA, arXiv 2103.14259)."""

from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules import AssignResult
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import softplus

from atss_ext import ops
from atss_ext.assigners.base import (
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
    check_valid,
    require_predictions,
    to_mmdet,
)
from atss_ext.assigners.cost_atss import at_candidates
from atss_ext.assigners.per_image import read_call
from atss_ext.assigners.rows import in_one_dtype, overlaps_of_winners
from atss_ext.assigners.sinkhorn import Plan, Problem, solve
from atss_ext.ops.reference import Candidates, aligned_box_iou, box_centers
from atss_ext.ops.reference.assignment import centers_inside, to_assigned
from atss_ext.registry import TASK_UTILS

# What a prior outside of the gt costs more (official code: 1e6).
OUTSIDE_COST = 1e6
# Keeps the logarithm of an IoU of 0 finite (official code: float32's eps).
IOU_EPS = torch.finfo(torch.float32).eps


class _Candidates(NamedTuple):
    """What gts may get, [T, K] each but ``boxes``.

    Attributes:
        priors: int64.
        usable: bool; False also for a score or box that is no finite number.
        inside: bool, centre in the gt.
        ious: float64, of the predicted box.
        logits: float64, of the gt's class.
    """

    priors: Tensor
    usable: Tensor
    inside: Tensor
    ious: Tensor
    logits: Tensor


@TASK_UTILS.register_module()
class OTAAssigner:
    """Optimal transport assignment (Ge et al., CVPR 2021) for a whole batch at once.

    Gts supply positive labels, the background supplies negative ones, priors each take one; the plan that
    moves them at the least cost, found by Sinkhorn's iteration, is the assignment: a prior learns from whom
    it gets the greatest share of that supplier's greatest amount. "Official" below is the code and the
    config of Megvii-BaseDetection/OTA (``ota.res50.fpn.coco.800size.1x``).

    - Cost of a pair: focal loss for the gt's class + ``reg_weight`` x IoU loss -log(IoU) (the form that the
      official code takes); for the background the focal loss for no class.
    - Center Prior: only the ``center_area`` = r^2 nearest priors of a level are offered, as the paper says
      (the official code offers a square of 2.5 strides each way instead); of them those whose centre lies
      outside of the gt cost 1e6 more (official), so that only a gt without any inside gets them.
    - Dynamic k Estimation: a gt supplies the sum of its ``top_ious`` highest IoUs (inside it), rounded down
      and at least 1 (official); the background what is left, at least 1.
    - That shares count, not amounts, is the official code's.

    Computed in float64 at the candidates: memory is that of the result and of a few [T, K]. Reads one number
    back from a device, that of priors that are someone's candidates. Ties go to the lower gt, and to gts
    before the background.

    Args:
        center_area: r^2, candidates a level and anchor of a location; 5 x 5 is the official square.
        top_ious: q, 20 (official ``TOP_CANDIDATES``).
        reg_weight: 1.5 (official ``REG_WEIGHT``).
        eps: weight of the entropy, 0.1 (official ``SINKHORN_EPS``).
        iterations: 50 (official ``SINKHORN_ITER``).
        focal_alpha: 0.25 (official ``FOCAL_LOSS_ALPHA``).
        focal_gamma: 2.0 (official ``FOCAL_LOSS_GAMMA``).

    Raises:
        ValueError: for counts below 1 or weights that are not positive.
    """

    needs_predictions = True

    def __init__(
        self,
        center_area: int = 25,
        top_ious: int = 20,
        reg_weight: float = 1.5,
        eps: float = 0.1,
        iterations: int = 50,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
    ) -> None:
        for name, count in (('center_area', center_area), ('top_ious', top_ious), ('iterations', iterations)):
            if count < 1:
                raise ValueError(f'{name} must be at least 1, got {count}')
        if not eps > 0:
            raise ValueError(f'eps must be positive, got {eps}: the official code uses 0.1')
        if not reg_weight >= 0:
            raise ValueError(f'reg_weight must not be negative, got {reg_weight}: the official code uses 1.5')
        self.center_area = center_area
        self.top_ious = top_ious
        self.reg_weight = reg_weight
        self.eps = eps
        self.iterations = iterations
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma

    @torch.no_grad()
    def assign_batch(
        self,
        priors: PyramidPriors,
        gts: PackedGts,
        valid: Tensor | None = None,
        predictions: Predictions | None = None,
    ) -> BatchAssignment:
        """Assigns every prior of every image of a batch.

        Args:
            priors: of the pyramid.
            gts: of the batch; ignore regions have no effect.
            valid: [B, N] bool, False for priors that take no part (in the padding); they come back as -1.
            predictions: needed.

        Returns:
            :class:`BatchAssignment`; its ``metrics`` are the shares of the greatest amount, at most 1.

        Raises:
            AssignmentError: without predictions, or for a label that they have no score of (CPU).
            ValueError: when ``valid`` does not fit.
        """
        found = require_predictions(self, predictions)
        check_valid(valid, priors, gts)
        anchors, boxes = in_one_dtype(priors.boxes, gts)
        shape, num_gts = (gts.num_images, len(priors)), boxes.size(0)
        winner, share = gts.offsets.new_full(shape, num_gts), anchors.new_zeros(shape)
        if not num_gts or not len(priors):
            return BatchAssignment(to_assigned(winner, gts.offsets, num_gts, valid, None), share, share)
        k = self.center_area * priors.per_location
        nearest = ops.center_topk(
            anchors, priors.level_sizes, boxes, gts.offsets, k, valid, None, priors.grid
        )
        candidates = _describe(nearest, anchors, boxes, gts, found)
        slots, problem = self._problem(candidates, gts, valid, len(priors))
        choice, shares = _decide(solve(problem, self.iterations), problem)
        winner.view(-1)[slots] = choice
        share.view(-1)[slots] = shares.to(share.dtype)
        ious = overlaps_of_winners(found.boxes.to(anchors.dtype), boxes, winner)
        return BatchAssignment(to_assigned(winner, gts.offsets, num_gts, valid, None), ious, share)

    def assign(self, pred_instances: InstanceData, *args: Any, **kwargs: Any) -> AssignResult:
        """The same for one image.

        Takes the call of any dense head of mmdet, see :func:`atss_ext.assigners.per_image.read_call`.

        Args:
            pred_instances: with ``priors`` [N, 4] or more columns, xyxy first, or points with their stride,
                ``scores`` [N, C], logits, and ``bboxes`` [N, 4].
            *args: ``num_level_priors`` (L counts that sum to N) where the head counts them, ``gt_instances``
                with ``bboxes`` [M, 4] and ``labels`` [M], ``gt_instances_ignore`` (without effect).
            **kwargs: the same by name.

        Raises:
            AssignmentError: for another call, one without predictions, or levels that neither head nor priors
                show.
        """
        call = read_call(
            self, pred_instances, args, kwargs, by_level=True, by_location=True, expect_logits=True
        )
        return to_mmdet(
            self.assign_batch(call.priors, call.gts, predictions=call.predictions), call.gts.labels
        )

    def _problem(
        self,
        candidates: _Candidates,
        gts: PackedGts,
        valid: Tensor | None,
        num_priors: int,
    ) -> tuple[Tensor, Problem]:
        """The priors that are someone's candidates, [P] int64 of B x N, and what is to be transported."""
        slots = candidates.priors + gts.image_ids[:, None] * num_priors
        flags = torch.zeros(gts.num_images * num_priors + 1, dtype=torch.bool, device=slots.device)
        flags[slots.masked_fill(~candidates.usable, -1)] = True
        flags[-1] = False
        used = flags.nonzero()[:, 0]
        columns = flags.cumsum(0) - 1
        supply = self._supply(candidates)
        images = used // num_priors
        by_image = supply.new_zeros(gts.num_images)
        everyone = torch.full_like(by_image, num_priors)
        takers = everyone if valid is None else valid.sum(1).to(by_image.dtype)
        given = by_image.index_add(0, gts.image_ids, supply)
        in_columns = by_image.index_add(0, images, torch.ones_like(images, dtype=by_image.dtype))
        return used, Problem(
            costs=self._costs(candidates) / self.eps,
            columns=columns[slots].masked_fill(~candidates.usable, len(used)),
            supply=supply,
            column_images=images,
            background_supply=(takers - given).clamp(min=1),
            others=takers - in_columns,
        )

    def _supply(self, candidates: _Candidates) -> Tensor:
        """[T]: dynamic k, the sum of the q highest IoUs."""
        ious = candidates.ious.masked_fill(~(candidates.inside & candidates.usable), 0)
        return ious.topk(min(self.top_ious, ious.size(1)), 1).values.sum(1).floor().clamp(min=1)

    def _costs(self, candidates: _Candidates) -> Tensor:
        """[T, K]: what a gt costs a prior more than the background does.

        Sinkhorn's plan depends on such differences alone, and in them the focal losses of all classes but
        the gt's cancel: no sum over classes is needed.
        """
        logits = candidates.logits
        costs = self._focal(logits, True) - self._focal(logits, False)
        costs = costs - self.reg_weight * candidates.ious.clamp(min=IOU_EPS).log()
        costs = costs + OUTSIDE_COST * ~candidates.inside
        return costs.masked_fill(~candidates.usable, torch.inf)

    def _focal(self, logits: Tensor, positive: bool) -> Tensor:
        """Focal loss (RetinaNet, eq. 5) of logits for their class or against it."""
        wrong = (-logits if positive else logits).sigmoid()
        weight = self.focal_alpha if positive else 1 - self.focal_alpha
        return weight * wrong**self.focal_gamma * softplus(-logits if positive else logits)


def _describe(
    nearest: Candidates, priors: Tensor, boxes: Tensor, gts: PackedGts, found: Predictions
) -> _Candidates:
    """What the nearest priors predict of their gts."""
    scores, predicted = at_candidates(nearest.prior_index, gts, found)
    logits = scores.double() if found.are_logits else scores.double().logit(IOU_EPS)
    ious = aligned_box_iou(predicted.double(), boxes[:, None].double())
    inside = centers_inside(box_centers(priors)[nearest.prior_index], boxes[:, None])
    # One cost that is no number would spread over the plan of its whole image.
    sound = logits.isfinite() & predicted.isfinite().all(-1)
    return _Candidates(
        nearest.prior_index,
        nearest.valid & sound,
        inside,
        ious.where(sound, 0.0),
        logits.where(sound, 0.0),
    )


def _decide(plan: Plan, problem: Problem) -> tuple[Tensor, Tensor]:
    """[P] each: the packed gt that every column learns, T for the background, and its share, 0 there."""
    num_gts, images = problem.supply.size(0), problem.column_images
    num_columns = images.size(0)
    greatest = plan.others.masked_fill(problem.others <= 0, -torch.inf)
    greatest = greatest.scatter_reduce(0, images, plan.background, 'amax')
    background = plan.background - greatest[images]
    index = problem.columns.view(-1)
    shares = (plan.gts - plan.gts.amax(1, keepdim=True)).view(-1)
    shares = shares.masked_fill(index == num_columns, -torch.inf)
    best = shares.new_full((num_columns + 1,), -torch.inf).scatter_reduce_(0, index, shares, 'amax')
    gt = torch.arange(num_gts, device=index.device)[:, None].expand_as(plan.gts).reshape(-1)
    gt = gt.masked_fill(shares < best[index], num_gts)
    first = index.new_full((num_columns + 1,), num_gts).scatter_reduce_(0, index, gt, 'amin')
    positive = best[:-1] >= background
    choice = torch.where(positive, first[:-1], num_gts)
    return choice, best[:-1].exp().where(positive, 0.0)
