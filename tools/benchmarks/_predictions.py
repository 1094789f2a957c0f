"""What a head predicts for a batch, as assigners that go by it are given it; one call of either side."""

from dataclasses import dataclass
from typing import Any

import torch
from _pairs import Call
from _scenes import STRIDES, Priors, pack, pyramid_priors, random_boxes
from _settings import Settings
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext import assigners
from atss_ext.assigners import BatchAssignment, PackedGts, Predictions

RULES = ('TaskAlignedAssigner', 'SimOTAAssigner', 'DynamicSoftLabelAssigner')
ARGUMENTS: dict[str, dict[str, int]] = {'TaskAlignedAssigner': {'topk': 13}}
STATES = ('half-trained', 'first step')


@dataclass(frozen=True)
class Batch:
    """A batch with predictions.

    Attributes:
        priors: of all images.
        logits: [B, N, C].
        boxes: [B, N, 4] xyxy, pixels, predicted.
        gts: B tensors [M, 4].
        labels: B tensors [M].
    """

    priors: Priors
    logits: Tensor
    boxes: Tensor
    gts: list[Tensor]
    labels: list[Tensor]

    @property
    def packed(self) -> PackedGts:
        """The gts as our assigners take them."""
        boxes, offsets = pack(self.gts)
        return PackedGts(boxes, torch.cat(self.labels), offsets)

    @property
    def points(self) -> Tensor:
        """[N, 4], centre and stride of every prior."""
        strides = [
            torch.full((size, 2), float(s)) for s, size in zip(STRIDES, self.priors.sizes, strict=True)
        ]
        return torch.cat([(self.priors.boxes[:, :2] + self.priors.boxes[:, 2:]) / 2, torch.cat(strides)], 1)


def make_batch(settings: Settings, images: int, gts: int, classes: int, state: str = STATES[0]) -> Batch:
    """Predictions of a head that has learned something, or nothing yet.

    Half-trained: priors within a gt predict it, a tenth of its size off, and its class at about 0.5; others
    predict something near themselves. First step: boxes are the priors, all scores about 0.01.
    """
    priors = pyramid_priors(settings.image, 'cpu')
    generator = torch.Generator().manual_seed(0)
    boxes = [random_boxes(gts, settings.image, seed, 'cpu') for seed in range(images)]
    labels = [torch.randint(0, classes, (gts,), generator=generator) for _ in range(images)]
    logits = torch.randn(images, len(priors.boxes), classes, generator=generator)
    predicted = priors.boxes.repeat(images, 1, 1)
    if state == 'first step':
        return Batch(priors, logits.mul_(0.05).sub_(4.6), predicted, boxes, labels)
    logits.sub_(5)
    for image in range(images):
        _learn(priors.boxes, boxes[image], labels[image], predicted[image], logits[image], generator)
    return Batch(priors, logits, predicted, boxes, labels)


def _learn(
    priors: Tensor, gts: Tensor, labels: Tensor, predicted: Tensor, logits: Tensor, generator: torch.Generator
) -> None:
    """Writes what priors within gts predict, the smallest gt first, in place."""
    centers = (priors[:, None, :2] + priors[:, None, 2:]) / 2
    inside = ((centers > gts[:, :2]) & (centers < gts[:, 2:])).all(-1)
    area = (gts[:, 2:] - gts[:, :2]).prod(1)
    least, chosen = area.expand_as(inside).masked_fill(~inside, float('inf')).min(1)
    within = least.isfinite()
    base = torch.where(within[:, None], gts[chosen], priors)
    sides = (base[:, 2:] - base[:, :2]).repeat(1, 2)
    predicted.copy_(base + 0.1 * sides * torch.randn(base.shape, generator=generator))
    logits[within, labels[chosen[within]]] += 5


def our_call(batch: Batch, name: str) -> Call:
    """Our assignment of the batch; probabilities, as mmdet's heads hand them over, but for RTMDet's."""
    assigner: Any = getattr(assigners, name)(**ARGUMENTS.get(name, {}))
    logits = name == 'DynamicSoftLabelAssigner'
    scores = batch.logits if logits else batch.logits.sigmoid()
    predictions = Predictions(scores, batch.boxes, are_logits=logits)
    gts, strides = batch.packed, [(float(stride), float(stride)) for stride in STRIDES]
    priors = assigners.PyramidPriors(batch.priors.boxes, batch.priors.sizes, strides=strides)
    return lambda: assigner.assign_batch(priors, gts, predictions=predictions)


def their_call(batch: Batch, name: str) -> Call:
    """mmdet's assignment of the batch, image by image; instances made beforehand."""
    from mmdet.models import task_modules

    assigner = getattr(task_modules, name)(**ARGUMENTS.get(name, {}))
    priors = batch.priors.boxes if name == 'TaskAlignedAssigner' else batch.points
    scores = batch.logits if name == 'DynamicSoftLabelAssigner' else batch.logits.sigmoid()
    pairs = [
        (
            InstanceData(priors=priors, scores=scores[image], bboxes=batch.boxes[image]),
            InstanceData(bboxes=batch.gts[image], labels=batch.labels[image]),
        )
        for image in range(len(batch.gts))
    ]
    return lambda: [assigner.assign(predictions, gts) for predictions, gts in pairs]


def share_of_differences(ours: BatchAssignment, theirs: list[Any]) -> float:
    """Of all priors, those that the two sides assign otherwise."""
    expected = torch.stack([result.gt_inds for result in theirs])
    return float((ours.assigned != expected).double().mean())
