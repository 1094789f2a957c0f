"""Adaptive training sample selection (ATSS, arXiv 1912.02424)."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext import ops
from atss_ext.assigners.base import BatchAssignment, PackedGts, Predictions, check_arguments, to_mmdet
from atss_ext.assigners.bbox_overlaps import is_plain_iou
from atss_ext.assigners.per_image import anchors_per_location, image_batch
from atss_ext.ops.reference import compute_dtype
from atss_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class ATSSAssigner:
    """ATSS for a whole batch at once, and a drop-in for mmdet's class of the same name.

    Every gt gets the ``topk`` nearest priors of every level as candidates; the mean plus the standard
    deviation of their IoUs is its threshold; a candidate at or above it whose centre lies inside the gt is
    positive; a prior that several gts claim goes to the one with the highest IoU (Algorithm 1).

    Ties are defined: equal distance, lower prior index; equal IoU, lower gt index. A gt with a single
    candidate has that candidate's IoU as threshold.

    Args:
        topk: k of the paper, candidates a level and anchor of a location; the paper uses 9.
        candidates: 'per_location' takes ``topk`` x (priors at one location) a level, as the paper and its
            code do; 'per_level' takes ``topk``, as mmdet does. They differ only with several anchors.
        iou_calculator: any of mmdet's; the default is computed for the candidates alone.
        ignore_iof_thr: priors with more than this share of their area in an ignore region are ignored
            unless they become positive; <= 0 switches ignore regions off.
        ensure_positive: give every gt at least one positive as far as priors suffice (not in the paper; see
            :func:`atss_ext.ops.reference.assignment.ensure_positives`).

    Raises:
        ValueError: for ``topk`` < 1 or an unknown ``candidates``.
    """

    def __init__(
        self,
        topk: int = 9,
        candidates: Literal['per_location', 'per_level'] = 'per_location',
        iou_calculator: dict | Any = None,
        ignore_iof_thr: float = -1,
        ensure_positive: bool = False,
    ) -> None:
        if topk < 1:
            raise ValueError(f'topk must be at least 1, got {topk}: the paper uses 9')
        if candidates not in ('per_location', 'per_level'):
            raise ValueError(f"candidates must be 'per_location' or 'per_level', got {candidates!r}")
        self.topk = topk
        self.candidates = candidates
        self.iou_calculator = MMDET_TASK_UTILS.build(iou_calculator or {'type': 'BboxOverlaps2D'})
        self.ignore_iof_thr = ignore_iof_thr
        self.ensure_positive = ensure_positive

    def assign_batch(
        self,
        priors: Tensor,
        level_sizes: Sequence[int],
        gts: PackedGts,
        valid: Tensor | None = None,
        priors_per_location: int = 1,
        grid: Sequence[ops.GridLevel] | None = None,
        strides: Sequence[tuple[float, float]] | None = None,
        predictions: Predictions | None = None,
    ) -> BatchAssignment:
        """Assigns every prior of every image of a batch.

        Args:
            priors: [N, 4] xyxy, pixels, shared by all images; all levels one after the other.
            level_sizes: L counts that sum to N.
            gts: of the batch.
            valid: [B, N] bool, False for priors that take no part (in the padding); they come back as -1.
            priors_per_location: anchors at one location.
            grid: the levels from :func:`atss_ext.ops.find_grid`, where they are grids; same result, faster.
            strides: not used.
            predictions: not used.

        Returns:
            :class:`BatchAssignment`.

        Raises:
            ValueError: when priors are not [N, 4] floats, sizes do not add up to N, ``valid`` does not
                fit, or ``priors_per_location`` is below 1.
        """
        check_arguments(priors, level_sizes, gts, valid, priors_per_location)
        k = self.topk * (priors_per_location if self.candidates == 'per_location' else 1)
        if is_plain_iou(self.iou_calculator) or not gts.boxes.size(0) or not priors.size(0):
            result = ops.atss_assign(
                priors,
                level_sizes,
                gts.boxes,
                gts.offsets,
                k,
                valid,
                gts.ignore_boxes,
                gts.ignore_offsets,
                self.ignore_iof_thr,
                self.ensure_positive,
                grid,
            )
        else:
            result = self._assign_by_calculator(priors, level_sizes, gts, k, valid, grid)
        return BatchAssignment(result.assigned, result.ious)

    def assign(
        self,
        pred_instances: InstanceData,
        num_level_priors: Sequence[int],
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
    ) -> AssignResult:
        """mmdet's call for one image: same arguments and result as ``mmdet.ATSSAssigner.assign``.

        Args:
            pred_instances: with ``priors`` [N, 4] or more columns, xyxy first.
            num_level_priors: L counts that sum to N.
            gt_instances: with ``bboxes`` [M, 4] and ``labels`` [M].
            gt_instances_ignore: with ``bboxes``, or None.
        """
        priors, gts = image_batch(pred_instances, gt_instances, gt_instances_ignore)
        per_location = 1
        if self.candidates == 'per_location' and priors.size(0):
            per_location = anchors_per_location(priors, num_level_priors)
        return to_mmdet(
            self.assign_batch(priors, num_level_priors, gts, None, per_location), gt_instances.labels
        )

    def _assign_by_calculator(
        self,
        priors: Tensor,
        level_sizes: Sequence[int],
        gts: PackedGts,
        k: int,
        valid: Tensor | None,
        grid: Sequence[ops.GridLevel] | None,
    ) -> ops.Assignment:
        """The same with overlaps of the user's own calculator."""
        dtype = compute_dtype(torch.promote_types(priors.dtype, gts.boxes.dtype))
        priors, boxes = priors.to(dtype), gts.boxes.to(dtype)
        ignored = None
        if self.ignore_iof_thr > 0 and gts.ignore_boxes is not None and gts.ignore_offsets is not None:
            regions = gts.ignore_boxes.to(dtype)
            ignored = ops.ignored_priors(
                priors, regions, gts.ignore_offsets, gts.offsets, self.ignore_iof_thr, self._iof
            )
        candidates = ops.center_topk(priors, level_sizes, boxes, gts.offsets, k, valid, ignored, grid)
        return ops.assign_candidates(
            candidates,
            priors,
            boxes,
            gts.offsets,
            valid,
            ignored,
            aligned_iou=self._aligned_iou,
            ensure_positive=self.ensure_positive,
        )

    def _iof(self, priors: Tensor, boxes: Tensor) -> Tensor:
        return self.iou_calculator(priors, boxes, mode='iof')

    def _aligned_iou(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Overlap of prior i with box i, [n], by a calculator that may only know all pairs."""
        calculator = self.iou_calculator
        if 'is_aligned' in inspect.signature(calculator).parameters:
            return calculator(priors, boxes, is_aligned=True)
        pairs = zip(priors.unsqueeze(1), boxes.unsqueeze(1), strict=True)
        return torch.cat([calculator(prior, box)[0] for prior, box in pairs])
