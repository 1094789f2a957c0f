"""The ATSS head with targets and losses made for the whole batch at once."""

from collections import OrderedDict
from typing import Any

import torch
from mmdet.models.dense_heads import ATSSHead as MMDetATSSHead
from mmdet.utils import InstanceList, OptInstanceList, reduce_mean
from torch import Tensor

from atss_ext import ops
from atss_ext.assigners import PackedGts, Predictions, assign_batch, needs_predictions
from atss_ext.models.dense_heads.prior_validity import valid_priors
from atss_ext.models.dense_heads.pyramid_priors import PyramidPriors
from atss_ext.registry import MODELS

# Feature shapes whose priors are kept: multi-scale training sees a few dozen.
PRIOR_CACHE_SIZE = 64


@MODELS.register_module()
class ATSSHead(MMDetATSSHead):
    """ATSS head: mmdet's architecture, weights, losses and predictions; targets for all images in one go.

    No loop over images or gts, and no value is read back to the host between the forward pass and the
    losses: results have fixed shapes, and what is not positive is masked instead of filtered. Assigners of
    this package serve the batch in one call, mmdet's are called image by image; those that go by predictions
    get them, and what does not fit is refused (see :func:`atss_ext.assigners.assign_batch`).

    Arguments and config keys are those of ``mmdet.ATSSHead`` (with ``reg_decoded_bbox=True``).

    Raises:
        ValueError: for ``reg_decoded_bbox=False``, which mmdet's loss ignores silently.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.reg_decoded_bbox:
            raise ValueError(
                'ATSSHead regresses decoded boxes (its loss is an IoU loss), got reg_decoded_bbox=False: '
                'remove that key from the config'
            )
        self._priors: OrderedDict[tuple, PyramidPriors] = OrderedDict()

    def pyramid_priors(self, shapes: tuple[tuple[int, int], ...], device: torch.device) -> PyramidPriors:
        """The priors of feature maps of these (height, width), cached."""
        key = (shapes, device)
        if key not in self._priors:
            self._priors[key] = PyramidPriors.generate(self.prior_generator, shapes, device)
            if len(self._priors) > PRIOR_CACHE_SIZE:
                self._priors.popitem(last=False)
        self._priors.move_to_end(key)
        return self._priors[key]

    def get_targets(  # type: ignore[override]
        self,
        priors: PyramidPriors,
        gts: PackedGts,
        valid: Tensor | None = None,
        predictions: Predictions | None = None,
    ) -> ops.Targets:
        """Targets of all images at once.

        Args:
            priors: of the feature maps.
            gts: of the batch.
            valid: [B, N] bool, False for priors in the padding; None when all are valid.
            predictions: for assigners that go by them.
        """
        result = assign_batch(
            self.assigner,
            priors.boxes,
            priors.sizes,
            gts,
            valid,
            priors_per_location=self.num_base_priors,
            grid=priors.grid,
            strides=self.prior_generator.strides,
            predictions=predictions,
        )
        return ops.gather_targets(
            priors.boxes,
            result.assigned,
            gts.boxes.to(priors.boxes.dtype),
            gts.labels,
            gts.offsets,
            self.num_classes,
            self.train_cfg['pos_weight'],
        )

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, list[Tensor]]:
        """Losses of all levels, equal to mmdet's (ATSS section 4: focal, GIoU weighted by centerness, BCE).

        Args:
            cls_scores: L tensors [B, A * classes, H, W], logits.
            bbox_preds: L tensors [B, A * 4, H, W], deltas.
            centernesses: L tensors [B, A, H, W], logits.
            batch_gt_instances: B instances with ``bboxes`` and ``labels``.
            batch_img_metas: B dicts with ``img_shape`` and ``pad_shape``.
            batch_gt_instances_ignore: B instances with ``bboxes``, or None.

        Returns:
            ``loss_cls``, ``loss_bbox``, ``loss_centerness``: a scalar a level each.
        """
        shapes = tuple((level.size(2), level.size(3)) for level in bbox_preds)
        priors = self.pyramid_priors(shapes, cls_scores[0].device)
        gts = PackedGts.from_instances(batch_gt_instances, batch_gt_instances_ignore)
        valid = valid_priors(
            self.prior_generator, priors.boxes, shapes, batch_img_metas, self.train_cfg['allowed_border']
        )
        predictions = None
        if needs_predictions(self.assigner):
            predictions = self._predictions(cls_scores, bbox_preds, priors)
        targets = self.get_targets(priors, gts, valid, predictions)
        # One reduction over the ranks, made whatever this rank holds: one without gts keeps nobody waiting.
        totals = reduce_mean(torch.stack([targets.num_positives, targets.centerness.sum()]))
        num_positives, centerness_sum = totals[0], totals[1].clamp(min=1)
        losses: dict[str, list[Tensor]] = {'loss_cls': [], 'loss_bbox': [], 'loss_centerness': []}
        start = 0
        for level, outputs in enumerate(zip(cls_scores, bbox_preds, centernesses, strict=True)):
            own = slice(start, start + priors.sizes[level])
            cls, box, centerness = self._level_loss(
                *outputs, priors.levels[level], targets, own, num_positives
            )
            losses['loss_cls'].append(cls)
            losses['loss_bbox'].append(box / centerness_sum)
            losses['loss_centerness'].append(centerness)
            start += priors.sizes[level]
        return losses

    @torch.no_grad()
    def _predictions(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], priors: PyramidPriors
    ) -> Predictions:
        """Scores and boxes at every prior of every image, in the order of the priors."""
        images = cls_scores[0].size(0)
        scores = [
            level.permute(0, 2, 3, 1).reshape(images, -1, self.cls_out_channels) for level in cls_scores
        ]
        deltas = [level.permute(0, 2, 3, 1).reshape(images, -1, 4) for level in bbox_preds]
        boxes = self.bbox_coder.decode(priors.boxes.repeat(images, 1), torch.cat(deltas, 1).reshape(-1, 4))
        return Predictions(torch.cat(scores, 1), boxes.reshape(images, -1, 4))

    def _level_loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        centerness: Tensor,
        priors: Tensor,
        targets: ops.Targets,
        own: slice,
        num_positives: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The three losses of one level; the box loss is not yet divided by the sum of centerness."""
        scores = cls_score.permute(0, 2, 3, 1).reshape(-1, self.cls_out_channels)
        loss_cls = self.loss_cls(
            scores,
            targets.labels[:, own].reshape(-1),
            targets.weights[:, own].reshape(-1),
            avg_factor=num_positives,
        )
        positive = targets.positive[:, own].reshape(-1)
        weights = targets.centerness[:, own].reshape(-1)
        # Masked before decoding: whatever a background location predicts, its gradient is exactly zero.
        deltas = bbox_pred.permute(0, 2, 3, 1).reshape(-1, 4)
        deltas = torch.where(positive[:, None], deltas, torch.zeros_like(deltas))
        boxes = self.bbox_coder.decode(priors.repeat(cls_score.size(0), 1), deltas)
        # Reduced here: mmdet's IoU losses read their weights back to the host before reducing them.
        loss_bbox = self.loss_bbox(boxes, targets.boxes[:, own].reshape(-1, 4), reduction_override='none')
        loss_bbox = torch.where(positive, loss_bbox * weights, torch.zeros_like(loss_bbox)).sum()
        logits = centerness.permute(0, 2, 3, 1).reshape(-1)
        loss_centerness = self.loss_centerness(
            logits, weights, positive.to(logits.dtype), avg_factor=num_positives
        )
        return loss_cls, loss_bbox, loss_centerness
