"""Dynamic soft label assignment (RTMDet, arXiv 2212.07784)."""

from typing import Any

import torch
from mmdet.models.task_modules import AssignResult
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext import ops
from atss_ext.assigners.base import (
    MMDET_NO_OVERLAP,
    AssignmentError,
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
    check_valid,
    require_predictions,
)
from atss_ext.assigners.dynamic_k import plain_iou, points_of, require_positive, to_mmdet_by_cost
from atss_ext.assigners.per_image import as_logits, call_points, read_call
from atss_ext.registry import TASK_UTILS

# Keeps the centre of an empty mask finite (mmdet).
_MASS_EPS = 1e-7


@TASK_UTILS.register_module()
class DynamicSoftLabelAssigner:
    """RTMDet's assigner for a whole batch at once, and a drop-in for mmdet's class of the same name.

    Candidates are priors inside a gt. A gt takes the k of least cost (section 3.4: cross entropy with the
    IoU as soft label, weighted by the squared distance to it; -log IoU; 10^(distance to the gt's centre in
    strides - radius)); k is the sum of its ``topk`` highest IoUs, rounded down, at least 1. A prior that
    several gts take goes to the gt for which it costs least. Of equal costs the lower prior wins, then the
    lower gt.

    Args:
        soft_center_radius: in strides.
        topk: IoUs that are added up to k.
        iou_weight: factor of -log IoU.
        iou_calculator: of mmdet's config; plain IoU, the default, is all it may be.

    Raises:
        ValueError: for ``topk`` < 1, a negative radius or weight, or another calculator.
    """

    needs_predictions = True

    def __init__(
        self,
        soft_center_radius: float = 3.0,
        topk: int = 13,
        iou_weight: float = 3.0,
        iou_calculator: dict | Any = None,
    ) -> None:
        require_positive(self, soft_center_radius=soft_center_radius, topk=topk, iou_weight=iou_weight)
        self.soft_center_radius = soft_center_radius
        self.topk = topk
        self.iou_weight = iou_weight
        self.iou_calculator = plain_iou(self, iou_calculator)

    def assign_batch(
        self,
        priors: PyramidPriors,
        gts: PackedGts,
        valid: Tensor | None = None,
        predictions: Predictions | None = None,
    ) -> BatchAssignment:
        """Assigns every prior of every image of a batch.

        Args:
            priors: of the pyramid, with strides (the width counts, as in mmdet); of boxes the centres do.
            gts: of the batch; distances go to the middle of a box. Ignore regions are not looked at, as in
                mmdet.
            valid: [B, N] bool, False for priors that take no part; they come back as -1.
            predictions: scores (logits) and boxes of all priors.

        Returns:
            :class:`BatchAssignment`, with the IoU of the predicted box.

        Raises:
            ValueError: when shapes, types or labels do not fit.
            AssignmentError: without strides or predictions, or for probabilities.
        """
        check_valid(valid, priors, gts)
        found = require_predictions(self, predictions)
        if not found.are_logits:
            raise AssignmentError(
                'DynamicSoftLabelAssigner needs logits as scores, not probabilities: pass what the head '
                'predicts, before the sigmoid'
            )
        return self._assign(points_of(self, priors), gts, valid, found)

    def assign(self, pred_instances: InstanceData, *args: Any, **kwargs: Any) -> AssignResult:
        """mmdet's call for one image: same arguments and result as ``mmdet.DynamicSoftLabelAssigner.assign``.

        Takes the call of any dense head of mmdet, see :func:`atss_ext.assigners.per_image.read_call`.

        Args:
            pred_instances: with ``priors`` [N, 4] (centre x, centre y, stride x, stride y) or anchors xyxy,
                whose strides their grid shows, ``scores`` [N, C] (logits) and ``bboxes`` [N, 4] xyxy.
            *args: ``num_level_priors`` where the head counts them, ``gt_instances`` with ``bboxes`` [M, 4]
                and ``labels`` [M], ``gt_instances_ignore`` (without effect); with ``masks`` [M, H, W] (a
                tensor) distances go to their centre of mass.
            **kwargs: the same by name.

        Raises:
            AssignmentError: for another call, one without predictions, or anchors that do not show their
                strides.
        """
        call = read_call(
            self, pred_instances, args, kwargs, by_level=True, expect_points=True, expect_logits=True
        )
        found, gts = as_logits(require_predictions(self, call.predictions)), call.gt_instances
        centers = None
        if len(call.gts.boxes) and 'masks' in gts:
            centers = _centers_of_mass(gts.masks)
        assignment = self._assign(call_points(self, call), call.gts, None, found, centers)
        return to_mmdet_by_cost(assignment, call.gts.labels, MMDET_NO_OVERLAP)

    def _assign(
        self,
        points: Tensor,
        gts: PackedGts,
        valid: Tensor | None,
        predictions: Predictions,
        centers: Tensor | None = None,
    ) -> BatchAssignment:
        return BatchAssignment(
            *ops.dynamic_k_assign(
                points,
                predictions.scores,
                predictions.boxes,
                gts.boxes,
                gts.labels,
                gts.offsets,
                'soft_label',
                self.topk,
                self.soft_center_radius,
                self.iou_weight,
                valid=valid,
                gt_centers=centers,
            )
        )


def _centers_of_mass(masks: Any) -> Tensor:
    """Mean column and row of the pixels of every mask: [M, H, W] -> [M, 2] (x, y).

    Raises:
        AssignmentError: for masks that are no tensor.
    """
    if not isinstance(masks, Tensor):
        raise AssignmentError(
            f'DynamicSoftLabelAssigner takes gt masks as a tensor [M, H, W], got {type(masks).__name__}: '
            'convert them with to_tensor, as RTMDetInsHead does'
        )
    pixels = masks.float()
    total = pixels.sum((1, 2)).clamp(min=_MASS_EPS)
    rows, columns = (torch.arange(size, device=masks.device) for size in masks.shape[1:])
    y = (pixels.sum(2) * rows).sum(1) / total
    x = (pixels.sum(1) * columns).sum(1) / total
    return torch.stack([x, y], 1)
