"""Adaptive training sample selection (ATSS, arXiv 1912.02424)."""

import inspect
from typing import Any, Literal

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext import ops
from atss_ext.assigners.base import (
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
    check_valid,
    to_mmdet,
)
from atss_ext.assigners.bbox_overlaps import is_plain_iou
from atss_ext.assigners.per_image import read_call
from atss_ext.assigners.rows import find_ignored, in_one_dtype
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
        k = self.topk * (priors.per_location if self.candidates == 'per_location' else 1)
        if is_plain_iou(self.iou_calculator) or not gts.boxes.size(0) or not len(priors):
            result = ops.atss_assign(
                priors.boxes,
                priors.level_sizes,
                gts.boxes,
                gts.offsets,
                k,
                valid,
                gts.ignore_boxes,
                gts.ignore_offsets,
                self.ignore_iof_thr,
                self.ensure_positive,
                priors.grid,
            )
        else:
            result = self._assign_by_calculator(priors, gts, k, valid)
        return BatchAssignment(result.assigned, result.ious)

    def assign(self, pred_instances: InstanceData, *args: Any, **kwargs: Any) -> AssignResult:
        """mmdet's call for one image: same arguments and result as ``mmdet.ATSSAssigner.assign``.

        Takes the call of any dense head of mmdet, see :func:`atss_ext.assigners.per_image.read_call`.

        Args:
            pred_instances: with ``priors`` [N, 4] or more columns, xyxy first, or points with their stride.
            *args: ``num_level_priors`` (L counts that sum to N) where the head counts them, ``gt_instances``
                with ``bboxes`` [M, 4] and ``labels`` [M], ``gt_instances_ignore`` with ``bboxes`` or None.
            **kwargs: the same by name.

        Raises:
            AssignmentError: for another call, or levels that neither head nor priors show.
        """
        call = read_call(
            self, pred_instances, args, kwargs, by_level=True, by_location=self.candidates == 'per_location'
        )
        return to_mmdet(self.assign_batch(call.priors, call.gts), call.gts.labels)

    def _assign_by_calculator(
        self, priors: PyramidPriors, gts: PackedGts, k: int, valid: Tensor | None
    ) -> ops.Assignment:
        """The same with overlaps of the user's own calculator."""
        anchors, boxes = in_one_dtype(priors.boxes, gts)
        ignored = find_ignored(anchors, gts, self.ignore_iof_thr, self._iof)
        candidates = ops.center_topk(
            anchors, priors.level_sizes, boxes, gts.offsets, k, valid, ignored, priors.grid
        )
        return ops.assign_candidates(
            candidates,
            anchors,
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
