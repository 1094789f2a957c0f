"""ATSS by predictions: the dynamic assignment of DDOD (arXiv 2107.02963)."""

from typing import Any, Literal

import torch
from mmdet.models.task_modules import AssignResult
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext import ops
from atss_ext.assigners import rows
from atss_ext.assigners.base import (
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
    check_labels,
    check_valid,
    require_predictions,
    to_mmdet,
)
from atss_ext.assigners.per_image import read_call
from atss_ext.assigners.rows import find_ignored, in_one_dtype, overlaps_of_winners
from atss_ext.ops.reference import aligned_box_iou
from atss_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class CostATSSAssigner:
    """ATSS with sigmoid(logit)^(1 - alpha) * IoU(predicted box, gt)^alpha in the place of the prior's IoU.

    ``mmdet.ATSSAssigner`` with ``alpha`` (DDOD, "Disentangle Your Dense Object Detector", arXiv 2107.02963)
    as a class of its own, for a whole batch at once. Candidates are the ``topk`` nearest priors of every
    level, but for those whose value is no finite number (a NaN score or box); everything else goes as in
    :class:`atss_ext.assigners.ATSSAssigner`, ties included.

    The value is computed at the candidates alone: memory is that of the result and of a few [T, K].

    Args:
        topk: candidates a level (and anchor of a location).
        alpha: how much the box counts and not the score, 0 to 1; mmdet's DDOD uses 0.8.
        candidates: 'per_location' takes ``topk`` x (priors at one location) a level, 'per_level' takes
            ``topk``, as mmdet does. They differ only with several anchors.
        ignore_iof_thr: priors with more than this share of their area in an ignore region are ignored
            unless they become positive; <= 0 switches ignore regions off.

    Raises:
        ValueError: for ``topk`` < 1, ``alpha`` outside of 0 to 1 or an unknown ``candidates``.
    """

    needs_predictions = True

    def __init__(
        self,
        topk: int = 9,
        alpha: float = 0.8,
        candidates: Literal['per_location', 'per_level'] = 'per_location',
        ignore_iof_thr: float = -1,
    ) -> None:
        if topk < 1:
            raise ValueError(f'topk must be at least 1, got {topk}: DDOD uses 9')
        if not 0 <= alpha <= 1:
            raise ValueError(f'alpha must lie in 0 to 1, got {alpha}: DDOD uses 0.8')
        if candidates not in ('per_location', 'per_level'):
            raise ValueError(f"candidates must be 'per_location' or 'per_level', got {candidates!r}")
        self.topk = topk
        self.alpha = alpha
        self.candidates = candidates
        self.ignore_iof_thr = ignore_iof_thr

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
            gts: of the batch.
            valid: [B, N] bool, False for priors that take no part (in the padding); they come back as -1.
            predictions: needed.

        Returns:
            :class:`BatchAssignment`; its ``metrics`` are the values that positives are ranked by.

        Raises:
            AssignmentError: without predictions, or for a label that they have no score of (CPU).
            ValueError: when ``valid`` does not fit.
        """
        found = require_predictions(self, predictions)
        check_valid(valid, priors, gts)
        anchors, boxes = in_one_dtype(priors.boxes, gts)
        ignored = find_ignored(anchors, gts, self.ignore_iof_thr)
        k = self.topk * (priors.per_location if self.candidates == 'per_location' else 1)
        if not boxes.size(0) or not len(priors):
            empty = ops.atss_assign(anchors, priors.level_sizes, boxes, gts.offsets, k, valid)
            return BatchAssignment(empty.assigned, empty.ious, empty.ious)
        candidates = ops.center_topk(
            anchors, priors.level_sizes, boxes, gts.offsets, k, valid, ignored, priors.grid
        )
        values = self._values(candidates.prior_index, gts, boxes, found)
        # One value that is no number would make the threshold of its gt one: such priors are no candidates.
        sound = values.isfinite()
        values = values.where(sound, 0.0)
        candidates = candidates._replace(distances=candidates.distances.masked_fill(~sound, torch.inf))
        result = ops.assign_candidates(
            candidates, anchors, boxes, gts.offsets, valid, ignored, aligned_iou=lambda *_: values.view(-1)
        )
        packed = result.assigned - 1 + gts.offsets[:-1, None]
        winner = torch.where(result.assigned > 0, packed, boxes.size(0))
        ious = overlaps_of_winners(found.boxes.to(anchors.dtype), boxes, winner)
        return BatchAssignment(result.assigned, ious, result.ious)

    def assign(self, pred_instances: InstanceData, *args: Any, **kwargs: Any) -> AssignResult:
        """mmdet's call for one image: as ``mmdet.ATSSAssigner.assign`` with ``alpha``.

        Takes the call of any dense head of mmdet, see :func:`atss_ext.assigners.per_image.read_call`.

        Args:
            pred_instances: with ``priors`` [N, 4] or more columns, xyxy first, or points with their stride,
                ``scores`` [N, C], logits, and ``bboxes`` [N, 4].
            *args: ``num_level_priors`` (L counts that sum to N) where the head counts them, ``gt_instances``
                with ``bboxes`` [M, 4] and ``labels`` [M], ``gt_instances_ignore`` with ``bboxes`` or None.
            **kwargs: the same by name.

        Returns:
            mmdet's; ``max_overlaps`` holds the values that positives are ranked by, as mmdet's does.

        Raises:
            AssignmentError: for another call, one without predictions, or levels that neither head nor priors
                show.
        """
        call = read_call(
            self,
            pred_instances,
            args,
            kwargs,
            by_level=True,
            by_location=self.candidates == 'per_location',
            expect_logits=True,
        )
        batch = self.assign_batch(call.priors, call.gts, predictions=call.predictions)
        ranked = batch.ious if batch.metrics is None else batch.metrics
        return to_mmdet(BatchAssignment(batch.assigned, ranked), call.gts.labels)

    def _values(self, index: Tensor, gts: PackedGts, boxes: Tensor, found: Predictions) -> Tensor:
        """[T, K]: what candidates are worth to their gt, in the dtype of ``boxes``."""
        scores, predicted = at_candidates(index, gts, found)
        scores = scores.to(boxes.dtype)
        if found.are_logits:
            scores = scores.sigmoid()
        overlaps = aligned_box_iou(predicted.to(boxes.dtype), boxes[:, None])
        return scores ** (1 - self.alpha) * overlaps**self.alpha


def at_candidates(index: Tensor, gts: PackedGts, found: Predictions) -> tuple[Tensor, Tensor]:
    """What a head predicts at every gt's candidates: the score of the gt's class, and the box.

    Args:
        index: [T, K] int64, priors.
        gts: of the batch.
        found: of the batch.

    Returns:
        [T, K] and [T, K, 4].

    Raises:
        AssignmentError: for a label without a score, on the CPU.
    """
    if rows.reads_are_free(index.device):
        check_labels(gts, found.scores.size(2))
    images = gts.image_ids[:, None]
    return found.scores[images, index, gts.labels[:, None]], found.boxes[images, index]
