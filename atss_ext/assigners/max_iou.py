"""Assignment by IoU thresholds (Faster R-CNN, RetinaNet)."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.assigners.base import (
    AssignmentError,
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
    check_valid,
)
from atss_ext.assigners.bbox_overlaps import pairwise_iou
from atss_ext.assigners.per_image import ImageCall, read_call
from atss_ext.assigners.rows import (
    Rows,
    find_ignored,
    in_one_dtype,
    of_images,
    reduce_rows,
    split_rows,
    usable_priors,
)
from atss_ext.ops.reference import box_centers
from atss_ext.ops.reference.assignment import centers_inside
from atss_ext.registry import TASK_UTILS


class _Match(NamedTuple):
    """What the gts say of every prior of every image, [B, N] each.

    Attributes:
        best: highest overlap with a gt; -1 for priors that take no part.
        winner: packed gt that has it, the lowest of equal ones.
        claimant: last packed gt that has its highest overlap here, -1 for none.
        claimed: that overlap.
    """

    best: Tensor
    winner: Tensor
    claimant: Tensor
    claimed: Tensor


@TASK_UTILS.register_module()
class MaxIoUAssigner:
    """``mmdet.MaxIoUAssigner`` for a whole batch at once, and a drop-in for it.

    A prior whose highest IoU with a gt is at least ``pos_iou_thr`` learns that gt, one below ``neg_iou_thr``
    is background, what lies between is ignored; then every gt claims the priors that overlap it most, however
    little (Faster R-CNN, arXiv 1506.01497, section 3.1.2; RetinaNet, arXiv 1708.02002, section 4).

    Memory is that of the result and of a few rows of overlaps (2**18 pairs at a time on the CPU, 2**24
    elsewhere), whatever the number of gts.

    Args:
        pos_iou_thr: lowest IoU of a positive.
        neg_iou_thr: highest IoU of the background (exclusive), or a pair (lowest, highest).
        min_pos_iou: gts claim no prior below it.
        gt_max_assign_all: a gt claims all priors that share its highest IoU, not the first alone.
        ignore_iof_thr: priors with more than this share of their area in an ignore region are ignored;
            <= 0 switches regions off.
        ignore_wrt_candidates: that share is the prior's; False: the region's.
        match_low_quality: whether gts claim priors below ``pos_iou_thr``.
        gpu_assign_thr: taken for mmdet's sake, without effect: memory does not grow with the gts.
        iou_calculator: any of mmdet's.
        perm_repeat_gt_cfg: must be None. mmdet moves repeated gts at random, one by one and by as many
            draws as it takes, which would make a result depend on the images before it.
        center_inside: positives whose centre does not lie inside their gt (by 0.01 pixels) are ignored: the
            rule ``IoU`` of the official ATSS code.
        low_quality_gt: what a claimed prior learns: 'claimant', the gt that claims it, the last of several
            (mmdet); 'best', the gt it overlaps most (the matcher of the official ATSS code, which is
            maskrcnn-benchmark's). None: 'best' with ``center_inside`` and 'claimant' without, so that both
            are wholly the rule of their code.

    Raises:
        ValueError: for ``perm_repeat_gt_cfg``, a ``neg_iou_thr`` that is no number or pair, or an unknown
            ``low_quality_gt``.
    """

    def __init__(
        self,
        pos_iou_thr: float,
        neg_iou_thr: float | Sequence[float],
        min_pos_iou: float = 0.0,
        gt_max_assign_all: bool = True,
        ignore_iof_thr: float = -1,
        ignore_wrt_candidates: bool = True,
        match_low_quality: bool = True,
        gpu_assign_thr: float = -1,
        iou_calculator: dict | Any = None,
        perm_repeat_gt_cfg: dict | None = None,
        center_inside: bool = False,
        low_quality_gt: Literal['claimant', 'best'] | None = None,
    ) -> None:
        if perm_repeat_gt_cfg is not None:
            raise ValueError(
                f'perm_repeat_gt_cfg={perm_repeat_gt_cfg} moves repeated gts at random, which cannot be done '
                'for a batch at once: leave it out or use mmdet.MaxIoUAssigner'
            )
        if low_quality_gt is None:
            low_quality_gt = 'best' if center_inside else 'claimant'
        if low_quality_gt not in ('claimant', 'best'):
            raise ValueError(f"low_quality_gt must be 'claimant' or 'best', got {low_quality_gt!r}")
        self.neg_iou_range = _negative_range(neg_iou_thr)
        self.pos_iou_thr = pos_iou_thr
        self.min_pos_iou = min_pos_iou
        self.gt_max_assign_all = gt_max_assign_all
        self.ignore_iof_thr = ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.match_low_quality = match_low_quality
        self.iou_calculator = MMDET_TASK_UTILS.build(iou_calculator or {'type': 'BboxOverlaps2D'})
        self.center_inside = center_inside
        self.low_quality_gt = low_quality_gt

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
            gts: of the batch.
            valid: [B, N] bool, False for priors that take no part (in the padding); they come back as -1.
            predictions: not used.

        Returns:
            :class:`BatchAssignment`.

        Raises:
            ValueError: when ``valid`` does not fit.
        """
        check_valid(valid, priors, gts)
        assigned, ious, _ = self._assign(priors.boxes, gts, valid)
        return BatchAssignment(assigned, ious)

    def assign(self, pred_instances: InstanceData, *args: Any, **kwargs: Any) -> AssignResult:
        """mmdet's call for one image: same arguments and result as ``mmdet.MaxIoUAssigner.assign``.

        Takes the call of any dense head of mmdet, see :func:`atss_ext.assigners.per_image.read_call`.

        Args:
            pred_instances: with ``priors`` [N, 4] xyxy, or points with their stride.
            *args: ``num_level_priors`` where the head counts them (without effect), ``gt_instances`` with
                ``bboxes`` [M, 4] and ``labels`` [M], ``gt_instances_ignore`` with ``bboxes`` or None.
            **kwargs: the same by name.

        Raises:
            AssignmentError: for another call, or a positive without a centerness in a head that takes it.
        """
        call = read_call(self, pred_instances, args, kwargs)
        assigned, ious, best = (rows[0] for rows in self._assign(call.priors.boxes, call.gts, None))
        if call.wants_centerness and not self.center_inside:
            _check_centers(call, assigned)
        labels, own = torch.full_like(assigned, -1), call.gts.labels
        if len(own):
            labels = torch.where(assigned > 0, own[(assigned - 1).clamp(min=0)], labels)
        result = AssignResult(len(own), assigned, best, labels=labels)
        result.assign_metrics = ious
        return result

    def _assign(self, priors: Tensor, gts: PackedGts, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N] each: assigned, overlap of positives with their gt, highest overlap with any gt."""
        priors, boxes = in_one_dtype(priors, gts)
        shape, num_gts = (gts.num_images, priors.size(0)), boxes.size(0)
        if not num_gts or not priors.size(0):
            assigned = gts.offsets.new_zeros(shape)
            if valid is not None:
                assigned.masked_fill_(~valid, -1)
            return assigned, priors.new_zeros(shape), priors.new_zeros(shape)
        usable = usable_priors(valid, find_ignored(priors, gts, self.ignore_iof_thr, self._iof))
        match = self._match(priors, boxes, gts, usable)
        assigned, winner, ious = self._decide(match, gts)
        if self.center_inside:
            own = boxes[winner.clamp(0, num_gts - 1)]
            outside = (assigned > 0) & ~centers_inside(box_centers(priors), own)
            assigned = assigned.masked_fill(outside, -1)
        empty = (gts.offsets.diff() == 0)[:, None]
        assigned = assigned.masked_fill(empty, 0)
        if valid is not None:
            assigned = assigned.masked_fill(~valid, -1)
        return assigned, ious.masked_fill(assigned <= 0, 0), match.best.masked_fill(empty, 0)

    def _match(self, priors: Tensor, boxes: Tensor, gts: PackedGts, usable: Tensor | None) -> _Match:
        shape = (gts.num_images, priors.size(0))
        # Gts are counted in float32 (exact up to 2**24), whose reductions PyTorch makes fastest.
        match = _Match(
            priors.new_full(shape, -1),
            torch.zeros(shape, device=priors.device),
            torch.full(shape, -1.0, device=priors.device),
            priors.new_zeros(shape),
        )
        numbers = torch.arange(boxes.size(0), device=priors.device, dtype=torch.float32)[:, None]
        highest = []
        for rows in split_rows(gts.image_ids, *shape):
            overlaps = pairwise_iou(self.iou_calculator, boxes[rows.gts], priors)
            if usable is not None:
                overlaps = overlaps.masked_fill(~of_images(usable, rows), -1)
            _find_best(match, rows, overlaps, numbers[rows.gts])
            if self.match_low_quality:
                highest.append(overlaps.amax(1))
                self._claim(match, rows, overlaps, highest[-1], numbers[rows.gts])
        claimant = match.claimant.long()
        claimed = torch.cat(highest)[claimant.clamp(min=0)] if highest else match.claimed
        return _Match(match.best, match.winner.long(), claimant, claimed)

    def _claim(self, match: _Match, rows: Rows, overlaps: Tensor, highest: Tensor, numbers: Tensor) -> None:
        """Every gt claims the priors that overlap it most; of several gts the last has it, as in mmdet.

        A gt that overlaps nothing claims all it does not overlap if ``min_pos_iou`` is 0, as in mmdet.
        """
        claims = (overlaps == highest[:, None]) & (highest >= max(self.min_pos_iou, 0.0))[:, None]
        if not self.gt_max_assign_all:
            order = torch.arange(claims.size(1), device=claims.device)
            claims &= order == torch.where(claims, order, claims.size(1)).amin(1, keepdim=True)
        claiming = torch.where(claims, numbers, -1.0)
        reduce_rows(match.claimant, rows, claiming, 'amax')

    def _decide(self, match: _Match, gts: PackedGts) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N] each: assigned, packed gt of positives, and their overlap with it."""
        low, high = self.neg_iou_range
        negative = (match.best >= low) & (match.best < high)
        claimed = match.claimant >= 0
        positive = (match.best >= self.pos_iou_thr) | claimed
        winner, ious = match.winner, match.best
        if self.low_quality_gt == 'claimant':
            winner = torch.where(claimed, match.claimant, winner)
            ious = torch.where(claimed, match.claimed, ious)
        background = torch.where(negative, 0, -1)
        return torch.where(positive, winner - gts.offsets[:-1, None] + 1, background), winner, ious

    def _iof(self, priors: Tensor, regions: Tensor) -> Tensor:
        if self.ignore_wrt_candidates:
            return self.iou_calculator(priors, regions, mode='iof')
        return self.iou_calculator(regions, priors, mode='iof').t()


def _find_best(match: _Match, rows: Rows, overlaps: Tensor, numbers: Tensor) -> None:
    """Raises ``best`` and ``winner`` of all priors to the gts of these rows, which come in their order."""
    best, winner = match.best[rows.images], match.winner[rows.images]
    before = best.clone()
    reduce_rows(match.best, rows, overlaps, 'amax')
    has_it = torch.where(overlaps == of_images(match.best, rows), numbers, torch.inf)
    first = torch.full_like(winner, torch.inf)
    first.scatter_reduce_(0, rows.own[:, None].expand_as(has_it), has_it, 'amin')
    winner.copy_(torch.where(best > before, first, winner))


def _check_centers(call: ImageCall, assigned: Tensor) -> None:
    """Refuses positives whose centerness (ATSS section 4: a root of distances to the sides) is no number.

    Raises:
        AssignmentError: where the centre of a positive lies outside of its gt.
    """
    positive = assigned > 0
    own = call.gts.boxes[assigned[positive] - 1]
    centers = box_centers(call.priors.boxes[positive])
    outside = ((centers < own[:, :2]) | (centers > own[:, 2:])).any(1)
    if bool(outside.any()):
        raise AssignmentError(
            f'MaxIoUAssigner gives {int(outside.sum())} of {len(own)} positives a gt that their centre lies '
            'outside of, and there is no centerness there for mmdet.ATSSHead or the first epochs of TOODHead '
            'to learn (VFNetHead, which learns none, calls alike): set center_inside=True, or take '
            'atss_ext.ATSSHead'
        )


def _negative_range(neg_iou_thr: float | Sequence[float]) -> tuple[float, float]:
    """The IoUs of the background: from the first (inclusive) to the second (exclusive)."""
    if isinstance(neg_iou_thr, (int, float)):
        return 0.0, float(neg_iou_thr)
    if len(neg_iou_thr) != 2:
        raise ValueError(f'neg_iou_thr must be a number or a pair (lowest, highest), got {neg_iou_thr}')
    return float(neg_iou_thr[0]), float(neg_iou_thr[1])
