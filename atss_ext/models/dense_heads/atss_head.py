"""The ATSS head with targets and losses made for the whole batch at once."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from mmdet.utils import InstanceList, OptInstanceList, reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext import ops
from atss_ext.assigners import PackedGts, Predictions, PyramidPriors, assign_batch, needs_predictions
from atss_ext.assigners.base import check_labels
from atss_ext.models.dense_heads.atss_layers import ATSSLayers
from atss_ext.models.dense_heads.box_loss import masked_box_loss
from atss_ext.models.dense_heads.official_ranking import rank_officially
from atss_ext.models.dense_heads.options import check_inference, check_regression, check_switches
from atss_ext.models.dense_heads.point_coder import PointDistanceCoder
from atss_ext.models.dense_heads.prior_validity import valid_priors
from atss_ext.models.dense_heads.pyramid_priors import generate_priors
from atss_ext.registry import MODELS

# Feature shapes whose priors are kept: multi-scale training sees a few dozen.
PRIOR_CACHE_SIZE = 64


@MODELS.register_module()
class ATSSHead(ATSSLayers):
    """ATSS head: mmdet's architecture, weights, losses and predictions; targets for all images in one go.

    No loop over images or gts, and no value is read back to the host between the forward pass and the
    losses: results have fixed shapes, and what is not positive is masked instead of filtered. Assigners of
    this package serve the batch in one call, mmdet's are called image by image; those that go by predictions
    get them, and what does not fit is refused (see :func:`atss_ext.assigners.assign_batch`).

    Arguments and config keys are those of ``mmdet.ATSSHead`` and the options below, by which the head is any
    row of the paper's tables 1 to 3: with all of them as in ``mmdet.RetinaHead`` it is RetinaNet's, with
    ``regression='point'`` FCOS's. Without a norm: ``norm_cfg=None``.

    ``test_cfg.inference`` is ``'mmdet'`` (default: the best ``nms_pre`` of a level by class probability, and
    score = class probability x centerness) or ``'official'`` (see
    :func:`~atss_ext.models.dense_heads.official_ranking.rank_officially`). Without centerness both rank and
    score by class probability, as the official RetinaNet does, whose score has no square root either. Where
    ``min_bbox_size`` is 0, boxes without an extent are dropped in both; the official code keeps them.

    Args:
        *args: of ``mmdet.ATSSHead``.
        regression: 'box', deltas of the anchor box (``bbox_coder``), or 'point', distances from the anchor's
            centre in strides (:class:`~atss_ext.models.dense_heads.point_coder.PointDistanceCoder`, which
            stands in for ``bbox_coder``; ReLU on the prediction, the bias begins at the anchor's sides).
        centerness: False: no such branch; the box loss is a mean over positives, the score is the class
            probability.
        scale_per_level: whether box predictions are multiplied by a learned number a level.
        dcn_on_last_conv: whether both towers end in a modulated deformable convolution (``DCNv2``).
        reg_decoded_bbox: True for an IoU loss of boxes; False for a loss of deltas such as SmoothL1Loss, with
            ``regression='box'`` only.
        **kwargs: of ``mmdet.ATSSHead``.

    Raises:
        ValueError: for options that do not go together (point regression with several anchors a location, an
            IoU loss of deltas and the like), an unknown ``regression`` or ``test_cfg.inference``, and what is
            switched by something else than True or False.
    """

    def __init__(
        self,
        *args: Any,
        regression: str = 'box',
        centerness: bool = True,
        scale_per_level: bool = True,
        dcn_on_last_conv: bool = False,
        **kwargs: Any,
    ) -> None:
        check_switches(
            centerness=centerness,
            scale_per_level=scale_per_level,
            dcn_on_last_conv=dcn_on_last_conv,
            reg_decoded_bbox=kwargs.get('reg_decoded_bbox', True),
        )
        self.regression = regression
        self.centerness = centerness
        self.scale_per_level = scale_per_level
        self.dcn_on_last_conv = dcn_on_last_conv
        super().__init__(*args, **kwargs)
        check_regression(regression, self.reg_decoded_bbox, self.loss_bbox)
        self._inference_mode(self.test_cfg)
        if regression == 'point':
            clip = getattr(self.bbox_coder, 'clip_border', True)
            self.bbox_coder = PointDistanceCoder.of_anchors(self.prior_generator, clip)
        self._priors: OrderedDict[tuple, PyramidPriors] = OrderedDict()

    def pyramid_priors(self, shapes: tuple[tuple[int, int], ...], device: torch.device) -> PyramidPriors:
        """The priors of feature maps of these (height, width), cached."""
        key = (shapes, device)
        if key not in self._priors:
            self._priors[key] = generate_priors(self.prior_generator, shapes, device)
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
        result = assign_batch(self.assigner, priors, gts, valid, predictions)
        return ops.gather_targets(
            priors.boxes,
            result.assigned,
            gts.boxes.to(priors.boxes.dtype),
            gts.labels,
            gts.offsets,
            self.num_classes,
            self.train_cfg['pos_weight'],
        )

    def loss_by_feat(  # type: ignore[override]
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor] | None,
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, list[Tensor]]:
        """Losses of all levels, equal to mmdet's (ATSS section 4: focal, GIoU weighted by centerness, BCE).

        Sums of classes and centerness are divided by the number of positives (at least one an image) over
        the ranks; that of boxes by the sum of centerness, and without centerness by the number of positives.

        Args:
            cls_scores: L tensors [B, A * classes, H, W], logits.
            bbox_preds: L tensors [B, A * 4, H, W], deltas.
            centernesses: L tensors [B, A, H, W], logits; None without that branch.
            batch_gt_instances: B instances with ``bboxes`` and ``labels``.
            batch_img_metas: B dicts with ``img_shape`` and ``pad_shape``.
            batch_gt_instances_ignore: B instances with ``bboxes``, or None.

        Returns:
            ``loss_cls``, ``loss_bbox`` and, with that branch, ``loss_centerness``: a scalar a level each.

        Raises:
            AssignmentError: for gt boxes or labels that cannot be used (named, on the CPU).
        """
        shapes = tuple((level.size(2), level.size(3)) for level in bbox_preds)
        priors = self.pyramid_priors(shapes, cls_scores[0].device)
        gts = PackedGts.from_instances(batch_gt_instances, batch_gt_instances_ignore)
        check_labels(gts, self.num_classes)
        valid = valid_priors(
            self.prior_generator, priors.boxes, shapes, batch_img_metas, self.train_cfg['allowed_border']
        )
        predictions = None
        if needs_predictions(self.assigner):
            predictions = self.predictions_of(cls_scores, bbox_preds, priors)
        targets = self.get_targets(priors, gts, valid, predictions)
        # One reduction over the ranks, made whatever this rank holds: one without gts keeps nobody waiting.
        totals = reduce_mean(torch.stack([targets.num_positives, targets.centerness.sum()]))
        num_positives = totals[0]
        box_total = totals[1].clamp(min=1) if self.centerness else num_positives
        names = ('loss_cls', 'loss_bbox', 'loss_centerness')[: 3 if self.centerness else 2]
        losses: dict[str, list[Tensor]] = {name: [] for name in names}
        start = 0
        for level, size in enumerate(priors.level_sizes):
            own = slice(start, start + size)
            values = [
                self._cls_loss(cls_scores[level], targets, own, num_positives),
                self._box_loss(bbox_preds[level], priors.levels[level], targets, own) / box_total,
            ]
            if centernesses is not None:
                values.append(self._centerness_loss(centernesses[level], targets, own, num_positives))
            for name, value in zip(names, values, strict=True):
                losses[name].append(value)
            start += size
        return losses

    @torch.no_grad()
    def predictions_of(
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

    def _cls_loss(self, logits: Tensor, targets: ops.Targets, own: slice, num_positives: Tensor) -> Tensor:
        """Of the level whose priors are ``own``."""
        return self.loss_cls(
            logits.permute(0, 2, 3, 1).reshape(-1, self.cls_out_channels),
            targets.labels[:, own].reshape(-1),
            targets.weights[:, own].reshape(-1),
            avg_factor=num_positives,
        )

    def _box_loss(self, deltas: Tensor, priors: Tensor, targets: ops.Targets, own: slice) -> Tensor:
        """Of one level, weighted by centerness where there is that branch; not divided by anything."""
        positive = targets.positive[:, own].reshape(-1)
        weights = targets.centerness[:, own].reshape(-1) if self.centerness else positive.to(priors.dtype)
        return masked_box_loss(
            self.loss_bbox,
            self.bbox_coder,
            deltas.permute(0, 2, 3, 1).reshape(-1, 4),
            priors.repeat(deltas.size(0), 1),
            targets.boxes[:, own].reshape(-1, 4),
            positive,
            weights,
            decoded=self.reg_decoded_bbox,
        )

    def _centerness_loss(
        self, logits: Tensor, targets: ops.Targets, own: slice, num_positives: Tensor
    ) -> Tensor:
        """Of the level whose priors are ``own``."""
        logits = logits.permute(0, 2, 3, 1).reshape(-1)
        positive = targets.positive[:, own].reshape(-1).to(logits.dtype)
        wanted = targets.centerness[:, own].reshape(-1)
        return self.loss_centerness(logits, wanted, positive, avg_factor=num_positives)

    @staticmethod
    def _inference_mode(test_cfg: Mapping[str, Any] | None) -> str:
        return check_inference((test_cfg or {}).get('inference', 'mmdet'))

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[Tensor | None],
        mlvl_priors: list[Tensor],
        img_meta: dict,
        cfg: Any,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceData:
        """Detections of one image; arguments are mmdet's, a tensor a level each."""
        settings = self.test_cfg if cfg is None else cfg
        if self._inference_mode(settings) == 'mmdet' or score_factor_list[0] is None:
            return super()._predict_by_feat_single(
                cls_score_list, bbox_pred_list, score_factor_list, mlvl_priors, img_meta, cfg, rescale,
                with_nms,
            )  # fmt: skip
        boxes, scores, labels = [], [], []
        levels = zip(cls_score_list, bbox_pred_list, score_factor_list, mlvl_priors, strict=True)
        for logits, deltas, centerness, priors in levels:
            logits = logits.permute(1, 2, 0).reshape(-1, self.cls_out_channels)
            found, classes, kept = rank_officially(
                logits.sigmoid() if self.use_sigmoid_cls else logits.softmax(-1)[:, :-1],
                centerness.permute(1, 2, 0).reshape(-1).sigmoid(),  # type: ignore[union-attr]
                settings.get('score_thr', 0),
                settings.get('nms_pre', -1),
            )
            chosen = deltas.permute(1, 2, 0).reshape(-1, 4)[kept]
            boxes.append(self.bbox_coder.decode(priors[kept], chosen, max_shape=img_meta['img_shape']))
            scores.append(found)
            labels.append(classes)
        results = InstanceData(bboxes=torch.cat(boxes), scores=torch.cat(scores), labels=torch.cat(labels))
        return self._bbox_post_process(results, settings, rescale, with_nms, img_meta)
