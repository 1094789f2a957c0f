"""Scenes with predictions, and where rounding may decide what an assigner does with them."""

from dataclasses import dataclass

import torch
from mmdet.models.task_modules import BboxOverlaps2D
from mmengine.structures import InstanceData
from scenes import STRIDES, pyramid_priors, random_boxes
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, one_hot

from atss_ext.assigners import PackedGts, Predictions, PyramidPriors

CLASSES = 9


@dataclass
class PredictedScene:
    """One image; ``points`` are centre and stride of the priors."""

    priors: Tensor
    points: Tensor
    sizes: list[int]
    logits: Tensor
    predicted: Tensor
    boxes: Tensor
    labels: Tensor

    @property
    def gts(self) -> InstanceData:
        return InstanceData(bboxes=self.boxes, labels=self.labels)

    @property
    def strides(self) -> list[tuple[float, float]]:
        return [(float(stride), float(stride)) for stride in STRIDES[: len(self.sizes)]]

    def instances(self, points: bool, logits: bool) -> InstanceData:
        """As mmdet's assigners take them."""
        return InstanceData(
            priors=self.points if points else self.priors,
            scores=self.logits if logits else self.logits.sigmoid(),
            bboxes=self.predicted,
        )


def predicted_scene(
    seed: int,
    kind: str = 'mixed',
    count: int = 12,
    height: int = 160,
    width: int = 200,
    levels: int = 5,
    saturated: bool = False,
) -> PredictedScene:
    """A half-trained head: half of the boxes are near gts, the others near their priors.

    Saturated scores are probabilities of exactly 0 and 1 in float32.
    """
    generator = torch.Generator().manual_seed(seed)
    priors, sizes = pyramid_priors(height, width, levels)
    strides = torch.cat([torch.full((n, 2), float(s)) for s, n in zip(STRIDES[:levels], sizes, strict=True)])
    points = torch.cat([(priors[:, :2] + priors[:, 2:]) / 2, strides], 1)
    boxes = random_boxes(kind, count, height, width, generator)
    noise = torch.randn(len(priors), 4, generator=generator)
    predicted = priors + noise * strides.repeat(1, 2)
    if count:
        near = torch.rand(len(priors), 1, generator=generator) < 0.5
        chosen = boxes[torch.randint(0, count, (len(priors),), generator=generator)]
        predicted = torch.where(near, chosen + 2 * noise, predicted)
    logits = torch.randn(len(priors), CLASSES, generator=generator) * 2 - 1
    if saturated:
        logits = logits.sign() * 150
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return PredictedScene(priors, points, sizes, logits, predicted, boxes, labels)


def batch_of(scenes: list[PredictedScene], logits: bool = True) -> dict:
    """Arguments of ``assign_batch``; all scenes have the same priors."""
    scores = torch.stack([scene.logits for scene in scenes])
    return {
        'priors': PyramidPriors(scenes[0].priors, scenes[0].sizes, strides=scenes[0].strides),
        'gts': PackedGts.from_instances([scene.gts for scene in scenes]),
        'predictions': Predictions(
            scores if logits else scores.sigmoid(),
            torch.stack([scene.predicted for scene in scenes]),
            are_logits=logits,
        ),
    }


def different(ours, theirs) -> Tensor:
    """[N] bool: priors that are assigned otherwise, or with another overlap."""
    return (
        (ours.gt_inds != theirs.gt_inds)
        | (ours.labels != theirs.labels)
        | (ours.max_overlaps != theirs.max_overlaps)
    )


def aligned_in_doubt(scene: PredictedScene, topk: int, alpha: float, beta: float) -> Tensor:
    """[N] bool: priors for which rounding decides whether a gt takes them, or which gt.

    Their metric equals that of the last place but for rounding, or is so small that float32 may make 0 of it.
    """
    ious = BboxOverlaps2D()(scene.predicted.double(), scene.boxes.double())
    metrics = scene.logits.double().sigmoid()[:, scene.labels] ** alpha * ious**beta
    doubt = ((metrics > 0) & (metrics < 1e-36)).any(1)
    if len(metrics) > topk and metrics.size(1):
        ordered = metrics.sort(0, descending=True).values
        last, following = ordered[topk - 1], ordered[topk]
        tied = last - following <= 2e-5 * last
        doubt |= (tied & ((metrics - last).abs() <= 4e-5 * last)).any(1)
    if ious.size(1) > 1:
        two = ious.topk(2).values
        doubt |= two[:, 0] == two[:, 1]
    return doubt


def sim_ota_cost(
    scene: PredictedScene, radius: float = 2.5, iou_weight: float = 3, cls_weight: float = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Costs and IoUs [N, M] in float64, with the class axis, and the candidates [N]."""
    x, y, stride = (column.double()[:, None] for column in scene.points.unbind(1)[:3])
    x1, y1, x2, y2 = scene.boxes.double().unbind(1)
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    near = ((x - (x1 + x2) / 2).abs() < radius * stride) & ((y - (y1 + y2) / 2).abs() < radius * stride)
    ious = BboxOverlaps2D()(scene.predicted.double(), scene.boxes.double())
    # Probabilities are what a float32 holds.
    p = scene.logits.sigmoid().double()[:, None].expand(-1, len(scene.labels), -1)
    target = one_hot(scene.labels, CLASSES).double().expand_as(p)
    entropy = binary_cross_entropy(p, target, reduction='none').sum(-1)
    cost = cls_weight * entropy - iou_weight * torch.log(ious + 1e-7) + 1e5 * ~(inside & near)
    return cost, ious, (inside | near).any(1)


def soft_label_cost(scene: PredictedScene, centers: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The same for RTMDet."""
    x, y, stride = (column.double()[:, None] for column in scene.points.unbind(1)[:3])
    x1, y1, x2, y2 = scene.boxes.double().unbind(1)
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    middle = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2], 1) if centers is None else centers.double()
    ious = BboxOverlaps2D()(scene.predicted.double(), scene.boxes.double())
    logits = scene.logits.double()[:, None].expand(-1, len(scene.labels), -1)
    label = one_hot(scene.labels, CLASSES).double() * ious[..., None]
    entropy = binary_cross_entropy_with_logits(logits, label, reduction='none')
    cls = (entropy * (label - logits.sigmoid()).square()).sum(-1)
    distance = torch.hypot(x - middle[:, 0], y - middle[:, 1]) / stride
    return cls - 3 * torch.log(ious + 1e-7) + 10 ** (distance - 3), ious, inside.any(1)


def cost_in_doubt(cost: Tensor, ious: Tensor, candidates: Tensor, topk: int) -> Tensor:
    """[N] bool: candidates for which rounding decides whether a gt takes them, or which gt.

    Their cost equals that of the last place but for float32's rounding (of 1e5 and more it keeps two
    decimals), that place moves because the IoUs add up to a whole number, or two gts cost them the same.
    """
    doubt = torch.zeros(len(cost), dtype=torch.bool)
    own = candidates.nonzero()[:, 0]
    if not len(own) or not cost.size(1):
        return doubt
    cost, ious = cost[own], ious[own]
    room = 1e-4 + 1e-6 * cost.abs()
    total = ious.topk(min(topk, len(own)), dim=0).values.sum(0)
    unsure = (total - total.round()).abs() < 1e-4
    counts = total.long().clamp(min=1)
    ordered = cost.sort(0).values
    for gt, count in enumerate(counts.tolist()):
        places = {count, int(total[gt].round()), int(total[gt].round()) - 1} if unsure[gt] else {count}
        for place in places:
            if not 1 <= place < len(own):
                continue
            last, following = ordered[place - 1, gt], ordered[place, gt]
            if unsure[gt] or following - last <= room[:, gt].max() or not last.isfinite():
                near = (cost[:, gt] - last).abs() <= 2 * (1e-4 + 1e-6 * last.abs())
                near |= (cost[:, gt] - following).abs() <= 2 * (1e-4 + 1e-6 * following.abs())
                doubt[own] |= near | ~cost[:, gt].isfinite()
    if cost.size(1) > 1:
        two = cost.topk(2, dim=1, largest=False).values
        doubt[own] |= two[:, 1] - two[:, 0] <= 1e-4 + 1e-6 * two[:, 1].abs()
    return doubt
