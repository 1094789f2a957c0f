"""Task alignment learning (TOOD, arXiv 2108.07755)."""

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
    to_mmdet,
)
from atss_ext.assigners.dynamic_k import plain_iou, require_positive
from atss_ext.assigners.per_image import read_call
from atss_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class TaskAlignedAssigner:
    """TOOD's assigner for a whole batch at once, and a drop-in for mmdet's class of the same name.

    Every gt takes the ``topk`` priors with the highest alignment metric score^alpha x IoU^beta (section 3.3),
    as far as it is above 0 and their centre lies more than 0.01 pixels inside the gt. A prior that several
    gts take goes to the one with the highest IoU. Of equal metrics the lower prior wins, of equal IoUs the
    lower gt.

    Args:
        topk: priors a gt takes at most; the paper uses 13.
        iou_calculator: of mmdet's config; plain IoU, the default, is all it may be.
        alpha: exponent of the score; TOOD's head passes its own to ``assign``.
        beta: exponent of the IoU, likewise.

    Raises:
        ValueError: for ``topk`` < 1, ``alpha`` < 0, ``beta`` <= 0, or another calculator.
    """

    needs_predictions = True

    def __init__(
        self, topk: int = 13, iou_calculator: dict | Any = None, alpha: float = 1, beta: float = 6
    ) -> None:
        require_positive(self, topk=topk, alpha=alpha)
        if not beta > 0:
            raise ValueError(f'beta of TaskAlignedAssigner must be above 0, got {beta}: the paper uses 6')
        self.topk = topk
        self.iou_calculator = plain_iou(self, iou_calculator)
        self.alpha = alpha
        self.beta = beta

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
            gts: of the batch; ignore regions are not looked at, as in mmdet.
            valid: [B, N] bool, False for priors that take no part; they come back as -1.
            predictions: scores and boxes of all priors.

        Returns:
            :class:`BatchAssignment`, with the IoU of the predicted box and the alignment metric.

        Raises:
            ValueError: when shapes, types or labels do not fit.
            AssignmentError: without predictions.
        """
        check_valid(valid, priors, gts)
        found = require_predictions(self, predictions)
        return self._assign(priors.boxes, gts, valid, found, self.alpha, self.beta)

    def assign(self, pred_instances: InstanceData, *args: Any, **kwargs: Any) -> AssignResult:
        """mmdet's call for one image: same arguments and result as ``mmdet.TaskAlignedAssigner.assign``.

        Takes the call of any dense head of mmdet, see :func:`atss_ext.assigners.per_image.read_call`.

        Args:
            pred_instances: with ``priors`` [N, 4] or more columns (xyxy first), or points with their stride,
                ``scores`` [N, C] (probabilities) and ``bboxes`` [N, 4].
            *args: ``num_level_priors`` where the head counts them (without effect), ``gt_instances`` with
                ``bboxes`` [M, 4] and ``labels`` [M], ``gt_instances_ignore`` (without effect), and the
                exponents ``alpha`` of the score and ``beta`` of the IoU where the head has them.
            **kwargs: the same by name.

        Returns:
            mmdet's result, with ``assign_metrics`` [N].

        Raises:
            AssignmentError: for another call, or one without predictions.
        """
        call = read_call(self, pred_instances, args, kwargs)
        alpha = self.alpha if call.alpha is None else call.alpha
        beta = self.beta if call.beta is None else call.beta
        found = require_predictions(self, call.predictions)
        assignment = self._assign(call.priors.boxes, call.gts, None, found, alpha, beta)
        return to_mmdet(assignment, call.gts.labels)

    def _assign(
        self,
        priors: Tensor,
        gts: PackedGts,
        valid: Tensor | None,
        predictions: Predictions,
        alpha: float,
        beta: float,
    ) -> BatchAssignment:
        return BatchAssignment(
            *ops.task_aligned_assign(
                priors,
                predictions.scores,
                predictions.boxes,
                gts.boxes,
                gts.labels,
                gts.offsets,
                valid,
                self.topk,
                alpha,
                beta,
                predictions.are_logits,
            )
        )
