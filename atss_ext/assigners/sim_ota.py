"""SimOTA (YOLOX, arXiv 2107.08430)."""

from typing import Any

from mmdet.models.task_modules import AssignResult
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext import ops
from atss_ext.assigners.base import (
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
    check_valid,
    require_predictions,
)
from atss_ext.assigners.dynamic_k import plain_iou, points_of, require_positive, to_mmdet_by_cost
from atss_ext.assigners.per_image import call_points, read_call
from atss_ext.registry import TASK_UTILS

# What mmdet's class reports as the overlap of a prior that no gt claims.
_NO_OVERLAP = -100000.0


@TASK_UTILS.register_module()
class SimOTAAssigner:
    """YOLOX's assigner for a whole batch at once, and a drop-in for mmdet's class of the same name.

    Candidates are priors inside a gt or within ``center_radius`` strides of a gt's centre. A gt takes the k
    of least cost (cross entropy of all classes, -log IoU, and 1e5 unless the prior is both for that gt); k is
    the sum of its ``candidate_topk`` highest IoUs, rounded down, at least 1. A prior that several gts take
    goes to the gt for which it costs least. Of equal costs the lower prior wins, then the lower gt.

    The cross entropy over all classes is the cost of "no object", one sum a prior, but for the class of the
    gt: no class axis is ever made.

    Args:
        center_radius: in strides.
        candidate_topk: IoUs that are added up to k.
        iou_weight: factor of -log IoU.
        cls_weight: factor of the cross entropy.
        iou_calculator: of mmdet's config; plain IoU, the default, is all it may be.

    Raises:
        ValueError: for ``candidate_topk`` < 1, a negative radius or weight, or another calculator.
    """

    needs_predictions = True

    def __init__(
        self,
        center_radius: float = 2.5,
        candidate_topk: int = 10,
        iou_weight: float = 3.0,
        cls_weight: float = 1.0,
        iou_calculator: dict | Any = None,
    ) -> None:
        require_positive(
            self,
            center_radius=center_radius,
            candidate_topk=candidate_topk,
            iou_weight=iou_weight,
            cls_weight=cls_weight,
        )
        self.center_radius = center_radius
        self.candidate_topk = candidate_topk
        self.iou_weight = iou_weight
        self.cls_weight = cls_weight
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
            priors: of the pyramid, with strides; of the boxes the centres count.
            gts: of the batch; ignore regions are not looked at, as in mmdet.
            valid: [B, N] bool, False for priors that take no part; they come back as -1.
            predictions: scores and boxes of all priors.

        Returns:
            :class:`BatchAssignment`, with the IoU of the predicted box.

        Raises:
            ValueError: when shapes, types or labels do not fit.
            AssignmentError: without strides or predictions.
        """
        check_valid(valid, priors, gts)
        found = require_predictions(self, predictions)
        return self._assign(points_of(self, priors), gts, valid, found)

    def assign(self, pred_instances: InstanceData, *args: Any, **kwargs: Any) -> AssignResult:
        """mmdet's call for one image: same arguments and result as ``mmdet.SimOTAAssigner.assign``.

        Takes the call of any dense head of mmdet, see :func:`atss_ext.assigners.per_image.read_call`.

        Args:
            pred_instances: with ``priors`` [N, 4] (centre x, centre y, stride x, stride y) or anchors xyxy,
                whose strides their grid shows, ``scores`` [N, C] (probabilities) and ``bboxes`` [N, 4] xyxy.
            *args: ``num_level_priors`` where the head counts them, ``gt_instances`` with ``bboxes`` [M, 4]
                and ``labels`` [M], ``gt_instances_ignore`` (without effect).
            **kwargs: the same by name.

        Raises:
            AssignmentError: for another call, one without predictions, or anchors that do not show their
                strides.
        """
        call = read_call(self, pred_instances, args, kwargs, by_level=True, expect_points=True)
        found = require_predictions(self, call.predictions)
        assignment = self._assign(call_points(self, call), call.gts, None, found)
        return to_mmdet_by_cost(assignment, call.gts.labels, _NO_OVERLAP)

    def _assign(
        self, points: Tensor, gts: PackedGts, valid: Tensor | None, predictions: Predictions
    ) -> BatchAssignment:
        return BatchAssignment(
            *ops.dynamic_k_assign(
                points,
                predictions.scores,
                predictions.boxes,
                gts.boxes,
                gts.labels,
                gts.offsets,
                'sim_ota',
                self.candidate_topk,
                self.center_radius,
                self.iou_weight,
                self.cls_weight,
                valid,
                are_logits=predictions.are_logits,
            )
        )
