"""Random scenes, and a literal transcription of ATSS that knows nothing of the package's code."""

import math
from dataclasses import dataclass

import torch
from mmdet.models.task_modules import BboxOverlaps2D
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmengine.structures import InstanceData
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
KINDS = ('mixed', 'tiny', 'huge', 'crowded', 'aligned', 'outside')


@dataclass
class Scene:
    """One image: priors of all levels, their counts, gts and ignore regions."""

    priors: Tensor
    sizes: list[int]
    boxes: Tensor
    labels: Tensor
    ignored: Tensor

    @property
    def gts(self) -> InstanceData:
        return InstanceData(bboxes=self.boxes, labels=self.labels)

    @property
    def ignored_instances(self) -> InstanceData:
        return InstanceData(bboxes=self.ignored)

    @property
    def predictions(self) -> InstanceData:
        return InstanceData(priors=self.priors)


def pyramid_priors(height: int, width: int, levels: int = 5, ratios=(1.0,), scales: int = 1):
    """mmdet's anchors (8 x stride) of an image padded to its size: priors [N, 4] and level sizes."""
    strides = STRIDES[:levels]
    generator = AnchorGenerator(
        strides=list(strides), ratios=list(ratios), octave_base_scale=8, scales_per_octave=scales
    )
    shapes = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]
    levels_priors = generator.grid_priors(shapes, device='cpu')
    return torch.cat(levels_priors), [len(level) for level in levels_priors]


def random_boxes(kind: str, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boxes [count, 4] of a scene kind."""
    extent = torch.tensor([width, height], dtype=torch.float32)
    unit = torch.rand(count, 4, generator=generator)
    centers = unit[:, :2] * extent
    if kind == 'tiny':
        sizes = unit[:, 2:] * 6
    elif kind == 'huge':
        sizes = extent * (0.5 + unit[:, 2:])
    elif kind == 'crowded':
        centers = extent / 2 + (unit[:, :2] - 0.5) * 40
        sizes = 20 + unit[:, 2:] * 60
    elif kind == 'outside':
        centers = (unit[:, :2] * 3 - 1) * extent
        sizes = torch.exp(unit[:, 2:] * 5)
    else:
        sizes = torch.exp(unit[:, 2:] * 5.5)
    boxes = torch.cat([centers - sizes / 2, centers + sizes / 2], 1)
    return (boxes / 8).round() * 8 if kind == 'aligned' else boxes


def random_scene(
    seed: int,
    kind: str,
    count: int,
    height: int,
    width: int,
    levels: int = 5,
    num_ignored: int = 0,
    **anchors,
) -> Scene:
    """A scene that depends on its arguments alone."""
    generator = torch.Generator().manual_seed(seed)
    priors, sizes = pyramid_priors(height, width, levels, **anchors)
    boxes = random_boxes(kind, count, height, width, generator)
    labels = torch.randint(0, 80, (count,), generator=generator)
    ignored = random_boxes('mixed', num_ignored, height, width, generator)
    return Scene(priors, sizes, boxes, labels, ignored)


def literal_candidates(scene: Scene, gt: int, k: int, ignored: set[int]) -> list[int]:
    """The k nearest priors a level, one distance at a time; equal distances by lower index."""
    box = scene.boxes[gt].double().tolist()
    center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    found, start = [], 0
    for size in scene.sizes:
        ranked = []
        for index in range(start, start + size):
            x1, y1, x2, y2 = scene.priors[index].double().tolist()
            distance = ((x1 + x2) / 2 - center[0]) ** 2 + ((y1 + y2) / 2 - center[1]) ** 2
            ranked.append((1e16 if index in ignored else distance, index))
        found += [index for _, index in sorted(ranked)[:k]]
        start += size
    return found


def literal_iou(a: list[float], b: list[float]) -> float:
    """IoU of two boxes in Python floats."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / max(union, 1e-6)


def literal_atss(scene: Scene, k: int, ignored: set[int] = frozenset()) -> list[int]:
    """Algorithm 1 in plain Python, float64: assigned gt + 1, 0 or -1 for every prior."""
    claims: dict[int, list[tuple[float, int]]] = {}
    for gt in range(len(scene.boxes)):
        box = scene.boxes[gt].double().tolist()
        found = literal_candidates(scene, gt, k, ignored)
        ious = [literal_iou(scene.priors[index].double().tolist(), box) for index in found]
        mean = sum(ious) / len(ious)
        variance = sum((iou - mean) ** 2 for iou in ious) / (len(ious) - 1) if len(ious) > 1 else 0.0
        for index, iou in zip(found, ious, strict=True):
            x1, y1, x2, y2 = scene.priors[index].double().tolist()
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if inside and iou >= mean + math.sqrt(variance):
                claims.setdefault(index, []).append((-iou, gt))
    result = [-1 if index in ignored and len(scene.boxes) else 0 for index in range(len(scene.priors))]
    for index, claim in claims.items():
        result[index] = min(claim)[1] + 1
    return result


def kth_place_ties(scene: Scene, k: int, ignored: set[int] = frozenset()) -> Tensor:
    """[M] bool: gts for which, on some level, the k-th and the next nearest prior are equally far.

    mmdet's ``torch.topk`` leaves open which of them it takes; we take the lower index. Its distances are
    rounded to the working precision, so neighbours a few ulps apart may be swapped too. Ignored priors
    are all equally far (mmdet's 1e8).
    """
    centers = (scene.priors[:, :2] + scene.priors[:, 2:]).double() / 2
    gts = (scene.boxes[:, :2] + scene.boxes[:, 2:]).double() / 2
    distances = torch.cdist(gts, centers, compute_mode='donot_use_mm_for_euclid_dist')
    distances[:, list(ignored)] = 1e8
    tied = torch.zeros(len(gts), dtype=torch.bool)
    for level in distances.split(scene.sizes, dim=1):
        if level.size(1) > k:
            ordered = level.sort(dim=1).values
            tied |= (ordered[:, k] - ordered[:, k - 1]) <= 1e-5 * ordered[:, k].clamp(min=1)
    return tied


def literal_ignored(scene: Scene, iof_thr: float) -> set[int]:
    """Priors of which more than ``iof_thr`` lies in one ignore box; none in an image without gts (mmdet)."""
    if iof_thr <= 0 or not len(scene.boxes) or not len(scene.ignored):
        return set()
    share = BboxOverlaps2D()(scene.priors, scene.ignored, mode='iof').amax(1)
    return set((share > iof_thr).nonzero()[:, 0].tolist())


def threshold_in_rounding(scene: Scene, k: int, ignored: set[int] = frozenset()) -> Tensor:
    """[M] bool: gts with a candidate whose IoU equals the threshold up to float32's rounding.

    mmdet sums in float32 in an order of the library's choosing; we sum in float64. Where an IoU *is* the
    threshold (all candidates alike, say) mmdet's answer is that rounding.
    """
    close = []
    for gt, box in enumerate(scene.boxes.double().tolist()):
        found = literal_candidates(scene, gt, k, ignored)
        ious = torch.tensor([literal_iou(scene.priors[i].double().tolist(), box) for i in found]).double()
        std = ious.std() if len(ious) > 1 else ious.new_zeros(())
        threshold = ious.mean() + std
        close.append(bool(((ious - threshold).abs() <= 2e-6 * threshold.clamp(min=1e-3)).any()))
    return torch.tensor(close, dtype=torch.bool)
