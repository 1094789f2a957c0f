"""A detector as one graph: from the pixels of an image to its detections.

mmdet's own ``predict`` cannot be captured: it branches on values (how many candidates there are) and carries
data samples. :class:`DetectorGraph` computes the same from tensors alone. What it leaves to the detector are
the parts that have parameters or settings (backbone, neck, head, priors, box coder).
"""

from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from atss_ext.deploy.support import check_support, inference_mode, suppression


class Ranked(NamedTuple):
    """What one level hands to NMS: k rows, best first.

    Attributes:
        values: [k], what they are ranked by; -1 where a row is no candidate.
        labels: [k], classes.
        deltas: [k, 4], of the box coder.
        priors: [k, 4], or [k, 2] of points.
        factors: [k], probabilities of centerness; ones without that branch.
    """

    values: Tensor
    labels: Tensor
    deltas: Tensor
    priors: Tensor
    factors: Tensor


class DetectorGraph(nn.Module):
    """Preprocessing, network, decoding, top-k and NMS of a one-stage detector, for one image.

    The detections are those of ``model.predict`` with ``rescale=False``: for both of
    ``atss_ext.ATSSHead``'s inference modes, and for every head that predicts as ``mmdet.BaseDenseHead`` does
    (``mmdet.ATSSHead``, ``RetinaHead``, ``FCOSHead``).

    Args:
        model: the detector, in evaluation mode.

    Raises:
        UserError: it has a part that this class does not reproduce.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_support(model)
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detections of one image.

        Args:
            image: uint8 [H, W, 3], as ``cv2.imread`` returns it and mmdet's pipelines resize it.

        Returns:
            boxes [D, 4] xyxy in pixels of this image, scores [D] and labels [D] (int64), best first.
        """
        head: Any = self.model.bbox_head
        features = self.model.extract_feat(self._prepare(image))  # type: ignore[operator]
        scores, deltas, factors = [*head(features), None][:3]
        shapes = [level.shape[-2:] for level in scores]
        priors = head.prior_generator.grid_priors(shapes, dtype=scores[0].dtype, device=scores[0].device)
        levels = [
            self._rank(scores[i], deltas[i], factors[i] if factors else None, priors[i])
            for i in range(len(scores))
        ]
        ranked = Ranked(*(torch.cat(part) for part in zip(*levels, strict=True)))
        boxes = head.bbox_coder.decode(ranked.priors, ranked.deltas, max_shape=image.shape[:2])
        chosen = ((ranked.values >= 0) & self._large_enough(boxes)).nonzero().squeeze(1)
        return self._suppress(boxes[chosen], self._scores(ranked)[chosen], ranked.labels[chosen])

    def _prepare(self, image: Tensor) -> Tensor:
        """[1, 3, H', W']: channels in the network's order, normalised, padded to the divisor."""
        step: Any = self.model.data_preprocessor
        pixels = image.permute(2, 0, 1)
        if step._channel_conversion:
            pixels = pixels.flip(0)
        pixels = pixels.float()
        if step._enable_normalize:
            pixels = (pixels - step.mean) / step.std
        divisor, (height, width) = step.pad_size_divisor, pixels.shape[1:]
        padded = [(side + divisor - 1) // divisor * divisor for side in (height, width)]
        padding = (0, padded[1] - width, 0, padded[0] - height)
        return torch.nn.functional.pad(pixels, padding, value=step.pad_value)[None]

    def _rank(self, scores: Tensor, deltas: Tensor, factors: Tensor | None, priors: Tensor) -> Ranked:
        """The best rows of one level (mmdet's ``filter_scores_and_topk``, or the official ranking).

        Args:
            scores: [1, A * classes, h, w], logits.
            deltas: [1, A * 4, h, w].
            factors: [1, A, h, w], logits of centerness; None without that branch.
            priors: [n, 4], or [n, 2] of points.
        """
        head: Any = self.model.bbox_head
        logits = scores[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
        probabilities = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[:, :-1]
        classes = probabilities.shape[1]
        if factors is None:
            centerness = torch.ones_like(probabilities[:, 0])
        else:
            centerness = factors[0].permute(1, 2, 0).reshape(-1).sigmoid()
        valid = probabilities > head.test_cfg.get('score_thr', 0)
        official = inference_mode(head) == 'official'
        values = probabilities * centerness[:, None] if official else probabilities
        # Below every score, so that what is no candidate comes last.
        best, order = _top(torch.where(valid, values, -1.0).reshape(-1), head.test_cfg.get('nms_pre', -1))
        rows = order // classes
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, head.bbox_coder.encode_size)
        return Ranked(best, order % classes, deltas[rows], priors[rows], centerness[rows])

    def _scores(self, ranked: Ranked) -> Tensor:
        """[k], what is reported (ATSSHead says more of both modes)."""
        if inference_mode(self.model.bbox_head) == 'official':
            return ranked.values.clamp(min=0).sqrt()
        return ranked.values * ranked.factors

    def _large_enough(self, boxes: Tensor) -> Tensor:
        head: Any = self.model.bbox_head
        least = head.test_cfg.get('min_bbox_size', -1)
        if least < 0:
            return torch.ones_like(boxes[:, 0], dtype=torch.bool)
        return (boxes[:, 2] - boxes[:, 0] > least) & (boxes[:, 3] - boxes[:, 1] > least)

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Non-maximum suppression within each class, as ``mmcv.ops.batched_nms`` does it."""
        rule = suppression(self.model)
        apart = boxes
        if not rule.class_agnostic:
            # Classes lie side by side. The zero stands for an image without candidates.
            far = torch.cat([boxes.reshape(-1), boxes.new_zeros(1)]).amax(0) + 1
            apart = boxes + (labels.to(boxes.dtype) * far)[:, None]
        kept = torchvision.ops.nms(apart, scores, rule.iou_threshold)[: rule.max_per_img]
        return boxes[kept], scores[kept], labels[kept]


def _top(values: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The best ``limit`` values and their places, all where it is not positive; -1 fills up.

    ``values`` is never shorter than the fixed number that top-k asks for, whatever the image's size.
    """
    length = values.shape[0]
    if limit <= 0 or isinstance(length, int):
        best, order = values.topk(length if limit <= 0 else min(limit, length))
        return best, order
    best, order = torch.cat([values, values.new_full((limit,), -1.0)]).topk(limit)
    return best, torch.where(best < 0, 0, order)
