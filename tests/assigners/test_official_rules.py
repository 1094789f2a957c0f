"""The four assignment rules of the official ATSS code, written out in NumPy, against our assigners.

Everything is float64 here, so that rounding decides nothing but what is said below.
"""

import numpy as np
import pytest
import torch
from scenes import KINDS, random_scene

from atss_ext.assigners import (
    ATSSAssigner,
    MaxIoUAssigner,
    PackedGts,
    PyramidPriors,
    SpatialScaleAssigner,
    TopKAssigner,
)

INF = 100000000
K = 9


def all_ious(anchors: np.ndarray, gts: np.ndarray, one: int) -> np.ndarray:
    """[N, M]; legacy boxes (``one`` = 1) count their last pixel."""
    left_top = np.maximum(anchors[:, None, :2], gts[None, :, :2])
    right_bottom = np.minimum(anchors[:, None, 2:], gts[None, :, 2:])
    sides = np.clip(right_bottom - left_top + one, 0, None)
    overlap = sides[..., 0] * sides[..., 1]
    return overlap / (areas(anchors, one)[:, None] + areas(gts, one)[None] - overlap)


def areas(boxes: np.ndarray, one: int) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0] + one) * (boxes[:, 3] - boxes[:, 1] + one)


def centers(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (boxes[:, 2] + boxes[:, 0]) / 2.0, (boxes[:, 3] + boxes[:, 1]) / 2.0


def sides_of(anchors: np.ndarray, gts: np.ndarray) -> np.ndarray:
    """[N, M, 4]: distances of every anchor's centre to the left, top, right and bottom of every gt."""
    x, y = (axis[:, None] for axis in centers(anchors))
    return np.stack([x - gts[:, 0], y - gts[:, 1], gts[:, 2] - x, gts[:, 3] - y], 2)


def all_distances(anchors: np.ndarray, gts: np.ndarray) -> np.ndarray:
    (x, y), (gt_x, gt_y) = centers(anchors), centers(gts)
    return np.sqrt((x[:, None] - gt_x) ** 2 + (y[:, None] - gt_y) ** 2)


def highest_iou_wins(ious: np.ndarray, positive: np.ndarray) -> np.ndarray:
    claimed = np.where(positive, ious, -INF)
    return np.where(claimed.max(1) == -INF, 0, claimed.argmax(1) + 1)


def official_atss(anchors, sizes, gts, one) -> np.ndarray:
    ious, distances = all_ious(anchors, gts, one), all_distances(anchors, gts)
    inside = sides_of(anchors, gts).min(2) > 0.01
    positive = np.zeros(ious.shape, dtype=bool)
    for gt in range(len(gts)):
        candidates, start = [], 0
        for size in sizes:
            nearest = np.argsort(distances[start : start + size, gt], kind='stable')[: min(K, size)]
            candidates += (nearest + start).tolist()
            start += size
        own = ious[candidates, gt]
        threshold = own.mean() + own.std(ddof=1)
        at_threshold = (np.abs(own - threshold) < 1e-12) & (own > 0) & inside[candidates, gt]
        if at_threshold.any():
            return None  # the last bit of the sum decides
        positive[candidates, gt] = (own >= threshold) & inside[candidates, gt]
    return highest_iou_wins(ious, positive)


def official_ssc(anchors, sizes, gts, one) -> np.ndarray:
    interest = np.repeat([[-1, 64], [64, 128], [128, 256], [256, 512], [512, INF]], sizes, axis=0)
    sides = sides_of(anchors, gts)
    farthest = sides.max(2)
    cared = (farthest >= interest[:, :1]) & (farthest <= interest[:, 1:])
    area = np.where((sides.min(2) > 0.01) & cared, areas(gts, one)[None], INF)
    return np.where(area.min(1) == INF, 0, area.argmin(1) + 1)


def official_iou(anchors, sizes, gts, one) -> np.ndarray:
    quality = all_ious(gts, anchors, one)
    best = quality.argmax(0)
    matched = best + 1
    matched[quality.max(0) < 0.5] = -1
    matched[quality.max(0) < 0.4] = 0
    of_low_quality = (quality == quality.max(1, keepdims=True)).any(0)
    matched[of_low_quality] = best[of_low_quality] + 1
    inside = sides_of(anchors, gts).min(2) > 0.01
    for anchor in np.flatnonzero(matched > 0):
        if not inside[anchor, matched[anchor] - 1]:
            matched[anchor] = -1
    return matched


def official_topk(anchors, sizes, gts, one) -> np.ndarray:
    distances = all_distances(anchors, gts)
    distances = distances / distances.max() / 1000
    ious = all_ious(anchors, gts, one)
    inside = sides_of(anchors, gts).min(2) > 0.01
    positive = np.zeros(ious.shape, dtype=bool)
    for gt in range(len(gts)):
        chosen = np.argsort(-(ious[:, gt] - distances[:, gt]), kind='stable')[:K]
        positive[chosen, gt] = inside[chosen, gt]
    return highest_iou_wins(ious, positive)


class PlusOneOverlaps:
    """Overlaps of legacy boxes as an ``iou_calculator``."""

    def __call__(self, bboxes1, bboxes2, mode='iou', is_aligned=False):
        assert mode == 'iou'
        if not is_aligned:
            bboxes1, bboxes2 = bboxes1[:, None], bboxes2[None]
        size = torch.minimum(bboxes1[..., 2:], bboxes2[..., 2:]) + 1
        size = (size - torch.maximum(bboxes1[..., :2], bboxes2[..., :2])).clamp(min=0)
        area1, area2 = ((boxes[..., 2:] - boxes[..., :2] + 1).prod(-1) for boxes in (bboxes1, bboxes2))
        overlap = size.prod(-1)
        return overlap / (area1 + area2 - overlap)


def with_calculator(assigner, one):
    if one:
        assigner.iou_calculator = PlusOneOverlaps()
    return assigner


RULES = {
    'ATSS': (official_atss, lambda one: with_calculator(ATSSAssigner(topk=K), one)),
    'SSC': (official_ssc, lambda one: SpatialScaleAssigner(plus_one=bool(one))),
    'IoU': (official_iou, lambda one: with_calculator(MaxIoUAssigner(0.5, 0.4, center_inside=True), one)),
    'TOPK': (official_topk, lambda one: with_calculator(TopKAssigner(topk=K), one)),
}


def scene_of(seed: int):
    """Of every kind, 1 to 24 gts; every fifth one of thin boxes of nearly one area on top of each other."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(16, 420, 2).tolist()
    scene = random_scene(seed, KINDS[seed % len(KINDS)], int(generator.integers(1, 25)), height, width)
    if seed % 5 == 0:
        middle = 8 + generator.random((len(scene.boxes), 2)) * 40
        width = np.exp(generator.random(len(scene.boxes)) * 4)
        half = np.stack([width, (900 + generator.random(len(scene.boxes)) * 50) / width], 1) / 2
        scene.boxes = torch.from_numpy(np.concatenate([middle - half, middle + half], 1))
    scene.priors, scene.boxes = scene.priors.double(), scene.boxes.double()
    return scene


@pytest.mark.parametrize('one', [0, 1], ids=['plain', 'plus_one'])
@pytest.mark.parametrize('rule', RULES)
def test_labels_equal_the_official_rule(rule, one):
    official, ours = RULES[rule]
    counts = dict.fromkeys(('positive', 'ignored', 'skipped'), 0)
    for seed in range(120):
        scene = scene_of(seed)
        expected = official(scene.priors.numpy(), scene.sizes, scene.boxes.numpy(), one)
        if expected is None:
            counts['skipped'] += 1
            continue
        gts = PackedGts.from_instances([scene.gts])
        found = ours(one).assign_batch(PyramidPriors(scene.priors, scene.sizes), gts).assigned[0].numpy()
        np.testing.assert_array_equal(found, expected, err_msg=f'scene {seed}')
        counts['positive'] += int((expected > 0).sum())
        counts['ignored'] += int((expected < 0).sum())
    assert counts['positive'] > 1500
    assert (counts['ignored'] > 500) == (rule == 'IoU')
    assert counts['skipped'] <= 6


@pytest.mark.parametrize('rule', RULES)
def test_the_extra_pixel_makes_a_difference(rule):
    """So that the two halves above are not the same test twice."""
    official, different = RULES[rule][0], 0
    for seed in range(120):
        scene = scene_of(seed)
        arguments = scene.priors.numpy(), scene.sizes, scene.boxes.numpy()
        plain, legacy = official(*arguments, 0), official(*arguments, 1)
        different += plain is not None and legacy is not None and not np.array_equal(plain, legacy)
    assert different > 3
