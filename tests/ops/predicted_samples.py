"""Sample inputs of the ops that go by predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from samples import SHAPES, OpSample, level_sizes, make_priors, offsets_of, random_boxes, random_mask
from torch import Tensor


@dataclass(frozen=True)
class Predicted:
    """A batch with predictions; ``points`` are centre and stride of the priors."""

    priors: Tensor
    points: Tensor
    scores: Tensor
    boxes: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor
    offsets: Tensor
    valid: Tensor | None = None

    def to(self, dtype: torch.dtype) -> 'Predicted':
        names = ('priors', 'points', 'scores', 'boxes', 'gt_boxes')
        return replace(self, **{name: getattr(self, name).to(dtype) for name in names})

    def aligned_args(self, topk: int = 13, alpha: float = 1.0, beta: float = 6.0) -> tuple:
        """Of the native op ``task_aligned_assign``; scores are logits."""
        gts = self.gt_boxes, self.gt_labels, self.offsets
        return (self.priors, self.scores, self.boxes, *gts, self.valid, topk, alpha, beta, True)

    def dynamic_args(self, rule: str, centers: Tensor | None = None, logits: bool = True) -> tuple:
        """Of the native op ``dynamic_k_assign``, with the numbers of mmdet's defaults."""
        numbers = (10, 2.5, 3.0, 1.0) if rule == 'sim_ota' else (13, 3.0, 3.0, 1.0)
        scores = self.scores if logits else self.scores.sigmoid()
        gts = self.gt_boxes, self.gt_labels, centers, self.offsets
        return (self.points, scores, self.boxes, *gts, self.valid, rule, *numbers, logits)


def predicted_case(
    counts: Sequence[int] = (5, 0, 12),
    shapes: Sequence[tuple[int, int]] = SHAPES,
    classes: int = 7,
    seed: int = 0,
) -> Predicted:
    """Boxes near the gts or the priors, as a half-trained head predicts them, and logits of any size."""
    generator = torch.Generator().manual_seed(seed)
    priors, sizes = make_priors(shapes), level_sizes(shapes)
    strides = torch.cat([torch.full((size, 2), 8.0 * 2**level) for level, size in enumerate(sizes)])
    points = torch.cat([(priors[:, :2] + priors[:, 2:]) / 2, strides], 1)
    extent = (shapes[0][1] * 8, shapes[0][0] * 8)
    gt_boxes, offsets = random_boxes(sum(counts), seed, extent), offsets_of(counts)
    noise = torch.randn(len(counts), len(priors), 4, generator=generator)
    boxes = priors + noise * strides.repeat(1, 2) * 2
    for image, count in enumerate(counts):
        if count:
            near = torch.rand(len(priors), generator=generator) < 0.5
            chosen = gt_boxes[int(offsets[image]) + torch.arange(len(priors)) * 7 % count]
            boxes[image] = torch.where(near[:, None], chosen + noise[image] * 2, boxes[image])
    scores = torch.randn(len(counts), len(priors), classes, generator=generator) * 2 - 1
    labels = torch.randint(0, classes, (sum(counts),), generator=generator)
    return Predicted(priors, points, scores, boxes, gt_boxes, labels, offsets)


def prediction_samples(
    name: str, counts: Sequence[int] = (5, 0, 12), shapes: Sequence[tuple[int, int]] = SHAPES
) -> list[OpSample]:
    """A batch for every rule."""
    case = predicted_case(counts, shapes)
    centers = (case.gt_boxes[:, :2] * 0.4 + case.gt_boxes[:, 2:] * 0.6).contiguous()
    masked = replace(case, valid=random_mask(len(counts), len(case.priors), 0.7))
    return [
        OpSample('task_aligned_assign', name, case.aligned_args()),
        OpSample('task_aligned_assign', f'{name}, masked', masked.aligned_args(5, 0.5, 2.0)),
        OpSample('dynamic_k_assign', f'{name}, sim_ota', case.dynamic_args('sim_ota')),
        OpSample('dynamic_k_assign', f'{name}, sim_ota, masked', masked.dynamic_args('sim_ota', None, False)),
        OpSample('dynamic_k_assign', f'{name}, soft label', case.dynamic_args('soft_label', centers)),
        OpSample('dynamic_k_assign', f'{name}, soft label, masked', masked.dynamic_args('soft_label')),
    ]


def all_prediction_samples() -> Iterator[OpSample]:
    yield from prediction_samples('random')
    yield from prediction_samples('all empty', (0, 0))
    yield from prediction_samples('no priors', (2,), ((0, 0),))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        typed = predicted_case().to(dtype)
        name = f'random {str(dtype).removeprefix("torch.")}'
        yield OpSample('task_aligned_assign', name, typed.aligned_args())
        yield OpSample('dynamic_k_assign', f'{name}, sim_ota', typed.dynamic_args('sim_ota'))
        yield OpSample('dynamic_k_assign', f'{name}, soft label', typed.dynamic_args('soft_label'))
