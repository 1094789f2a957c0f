"""Merging of views: area ranges and box voting against literal loops, and the shipped config."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from atss_ext.datasets.checks import DataError
from atss_ext.models.test_time_augmentation.box_voting import vote
from atss_ext.registry import MODELS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'test_time_aug.py'
SMALL, LARGE = (100, 100), (400, 200)


class Detector(nn.Module):
    """Never called: the tests hand the merged samples over."""

    def test_step(self, data):
        raise AssertionError


def model(**arguments):
    ranges = [(SMALL, (0, 1e5)), (LARGE, (0, 1e5))]
    return MODELS.build(
        {'type': 'atss_ext.ATSSTTA', 'module': Detector(), 'area_ranges': ranges, **arguments}
    )


def view(boxes, scores, labels, scale=SMALL, factor=(1.0, 1.0), flip=False, **more) -> DetDataSample:
    """Of an image of 100 x 200 (height, width)."""
    meta = {'ori_shape': (100, 200), 'scale': scale, 'scale_factor': factor, 'flip': flip,
            'flip_direction': 'horizontal' if flip else None, 'img_id': 7, **more}  # fmt: skip
    sample = DetDataSample(metainfo={key: value for key, value in meta.items() if value != 'left away'})
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.int64),
    )
    return sample


def merge(tta, *views) -> list[tuple[int, float, list[float]]]:
    [sample] = tta.merge_preds([list(views)])
    found = sample.pred_instances
    assert (found.bboxes.dtype, found.scores.dtype) == (torch.float32, torch.float32)
    return list(zip(found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist(), strict=True))


def literal_vote(boxes, scores, threshold, floor):
    """The rule box by box: groups of the best one left, their weighted mean, and what softly stays."""
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    merged = []
    while left:
        best = left[0]
        overlaps = {i: literal_iou(boxes[best], boxes[i]) for i in left}
        group = [i for i in left if overlaps[i] >= threshold]
        left = [i for i in left if overlaps[i] < threshold]
        if len(group) == 1:
            merged.append((*boxes[best], scores[best]))
            continue
        total = sum(scores[i] for i in group)
        merged.append(
            (*(sum(boxes[i][c] * scores[i] for i in group) / total for c in range(4)), scores[best])
        )
        if floor is not None:
            soft = [(*boxes[i], scores[i] * (1 - overlaps[i])) for i in group]
            merged += [entry for entry in soft if entry[4] >= floor]
    return merged


def literal_iou(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize('floor', [None, 0.05, 0.2])
@pytest.mark.parametrize('threshold', [0.3, 0.66])
@pytest.mark.parametrize('seed', range(3))
def test_voting(seed, threshold, floor):
    rng = np.random.default_rng(seed)
    objects = rng.uniform(0, 100, (6, 4))
    objects[:, 2:] = objects[:, :2] + rng.uniform(20, 60, (6, 2))
    boxes = objects[rng.integers(0, 6, 40)] + rng.normal(0, 3, (40, 4))
    scores = rng.uniform(0.05, 1, 40)
    expected = np.array(literal_vote(boxes.tolist(), scores.tolist(), threshold, floor))
    found = vote(boxes, scores, threshold, floor)
    assert 5 <= len(expected) < 60
    np.testing.assert_allclose(np.column_stack(found), expected, rtol=1e-12)


def test_voting_by_hand():
    """IoU 0.75 with the best: the mean of 3 to 1; alone: as it is. Softly 0.2 * (1 - 0.75) stays."""
    boxes = np.array([[0.0, 0, 4, 3], [50, 50, 60, 60], [0, 0, 4, 4]])
    scores = np.array([0.2, 0.5, 0.6])
    found = vote(boxes, scores, 0.75)
    np.testing.assert_allclose(found[0], [[0, 0, 4, 3.75], [50, 50, 60, 60]])
    assert found[1].tolist() == [0.6, 0.5]
    soft = vote(boxes, scores, 0.75, 0.05)
    np.testing.assert_allclose(soft[0], [[0, 0, 4, 3.75], [0, 0, 4, 3], [50, 50, 60, 60]])
    np.testing.assert_allclose(soft[1], [0.6, 0.05, 0.5])
    assert len(vote(boxes, scores, 0.75, 0.0501)[1]) == 2
    assert len(vote(boxes, scores, 0.7501)[1]) == 3


def test_voting_of_nothing_of_zeros_and_of_points():
    empty = vote(np.zeros((0, 4)), np.zeros(0), 0.5, 0.05)
    assert (empty[0].shape, empty[1].shape) == ((0, 4), (0,))
    twice = vote(np.array([[0.0, 0, 4, 4], [0, 0, 4, 4]]), np.zeros(2), 0.5, 0.0)
    assert (twice[0].tolist(), twice[1].tolist()) == ([[0, 0, 4, 4], [0, 0, 4, 4]], [0, 0])
    points = np.array([[3.0, 3, 3, 3], [3, 3, 3, 3]])
    assert vote(points, np.array([0.4, 0.5]), 0.5)[1].tolist() == [0.5, 0.4]


def test_areas_count_at_the_scale_of_the_view():
    """By literal areas: 400 and 900 at the small scale, 2 x 4 times that at the large one; ends excluded."""
    boxes = [[0, 0, 20, 20], [100, 0, 130, 30]]
    ranges = {'small': (20, 31), 'large': (56.5, 84.8)}  # 400 .. 961 and 3192.25 .. 7191.04
    tta = model(area_ranges=[(SMALL, ranges['small']), (LARGE, ranges['large'])])
    small = view(boxes, [0.5, 0.6], [0, 0])
    large = view(boxes, [0.7, 0.8], [0, 0], LARGE, (2.0, 4.0))
    assert merge(tta, small) == [(0, pytest.approx(0.6), boxes[1])]
    assert merge(tta, large) == [(0, pytest.approx(0.7), boxes[0])]
    upper = model(area_ranges=[(SMALL, (0, 30))])
    assert merge(upper, view(boxes, [0.5, 0.6], [0, 0])) == [(0, 0.5, boxes[0])]


@pytest.mark.parametrize('seed', range(3))
def test_ranges_flips_and_voting_together(seed):
    """Four views with their own detections, by plain loops over views, boxes and classes."""
    rng = np.random.default_rng(seed)
    objects = rng.uniform(0, 60, (8, 4))
    objects[:, 2:] = objects[:, :2] + rng.uniform(8, 40, (8, 2))
    limits = {SMALL: (15, 30), LARGE: (30, 80)}
    views, kept = [], []
    for scale, factor in ((SMALL, (1.0, 1.0)), (LARGE, (2.0, 4.0))):
        for flip in (False, True):
            boxes = (objects + rng.normal(0, 1, objects.shape)).astype(np.float32)
            scores = rng.uniform(0.1, 1, 8).astype(np.float32)
            labels = np.arange(8) % 2
            seen = boxes.copy()
            if flip:
                seen[:, [0, 2]] = 200 - boxes[:, [2, 0]]
            views.append(view(seen.tolist(), scores.tolist(), labels.tolist(), scale, factor, flip))
            low, high = limits[scale]
            for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True):
                area = (box[2] - box[0]) * factor[0] * (box[3] - box[1]) * factor[1]
                if low**2 < area < high**2:
                    kept.append((box, score, label))
    expected = []
    for label in (0, 1):
        own = [(box, score) for box, score, other in kept if other == label]
        boxes, scores = zip(*own, strict=True)
        expected += [(label, *entry) for entry in literal_vote(boxes, scores, 0.66, 0.05)]
    expected.sort(key=lambda entry: -entry[5])
    tta = model(area_ranges=list(limits.items()))
    found = merge(tta, *views)
    assert 8 < len(kept) < 32
    assert [entry[0] for entry in found] == [entry[0] for entry in expected]
    np.testing.assert_allclose([entry[1] for entry in found], [entry[5] for entry in expected], rtol=1e-5)
    np.testing.assert_allclose(
        [entry[2] for entry in found], [entry[1:5] for entry in expected], rtol=1e-4, atol=1e-4
    )


def test_the_same_boxes_in_every_view_come_back():
    boxes, mirrored = [[10, 20, 50, 60], [0, 5, 33, 77]], [[150, 20, 190, 60], [167, 5, 200, 77]]
    found = merge(
        model(),
        view(boxes, [0.3, 0.4], [2, 0]),
        view(mirrored, [0.5, 0.1], [2, 0], flip=True),
        view(mirrored, [0.2, 0.9], [2, 0], LARGE, (2.0, 2.0), flip=True),
    )
    assert found == [(0, pytest.approx(0.9), boxes[1]), (2, 0.5, boxes[0])]


def test_classes_vote_apart_and_the_best_are_kept():
    boxes = [[0, 0, 10, 10]] * 3
    assert [entry[0] for entry in merge(model(), view(boxes, [0.5, 0.7, 0.6], [0, 1, 2]))] == [1, 2, 0]
    few = merge(model(max_per_img=2), view(boxes, [0.5, 0.7, 0.6], [0, 1, 2]))
    assert [entry[0] for entry in few] == [1, 2]


def test_plain_voting_drops_what_soft_voting_keeps():
    boxes, scores, labels = [[0, 0, 4, 4], [0, 0, 4, 3]], [0.6, 0.4], [0, 0]
    assert len(merge(model(merge='vote'), view(boxes, scores, labels))) == 1
    assert len(merge(model(), view(boxes, scores, labels))) == 2
    assert len(merge(model(score_thr=0.11), view(boxes, scores, labels))) == 1


def test_no_detection_in_any_view_or_in_range():
    assert merge(model(), view([], [], []), view([], [], [], LARGE)) == []
    assert merge(model(area_ranges=[(SMALL, (50, 60))]), view([[0, 0, 9, 9]], [0.5], [0])) == []


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (
            {'merge': 'nms'},
            "merge must be 'vote' or 'soft-vote', got 'nms': to merge by NMS, take DetTTAModel",
        ),
        ({'vote_iou': 0}, 'vote_iou must be above 0 and at most 1, got 0'),
        (
            {'area_ranges': [(SMALL, (96, 96))]},
            'the area range of scale (100, 100) must be (low, high) with 0 <= low < high, got (96, 96)',
        ),
        (
            {'area_ranges': [((200, 400), (0, 9)), (LARGE, (0, 8))]},
            'scale (400, 200) has two area ranges: remove one of them',
        ),
        (
            {'area_ranges': [(SMALL, 3)]},
            'the area range of scale (100, 100) must be (low, high) with 0 <= low < high, got 3',
        ),
        (
            {'area_ranges': [(SMALL, (0, 'all'))]},
            "the area range of scale (100, 100) must be (low, high) with 0 <= low < high, got (0, 'all')",
        ),
        (
            {'area_ranges': [(2.0, (0, 9))]},
            'area_ranges must have pairs (scale, (low, high)), such as ((1333, 800), (96, 1e4)), got '
            '(2.0, (0, 9))',
        ),
        (
            {'area_ranges': [((1333, None), (0, 9))]},
            'such as ((1333, 800), (96, 1e4)), got ((1333, None), (0, 9))',
        ),
        (
            {'area_ranges': [96]},
            'such as ((1333, 800), (96, 1e4)), got 96',
        ),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, sentence):
    with pytest.raises(ValueError) as error:
        model(**arguments)
    assert sentence in str(error.value)


def test_views_of_unknown_scale_are_refused():
    with pytest.raises(DataError) as error:
        merge(model(), view([], [], [], scale=(300, 100)))
    assert str(error.value) == (
        'ATSSTTA has no area range for the scale (100, 300) of a view, only for (100, 100), (200, 400): add '
        'one to area_ranges of tta_model'
    )
    with pytest.raises(DataError) as error:
        merge(model(), view([], [], [], scale=2.0))
    assert str(error.value).startswith('ATSSTTA has no area range for the scale 2.0 of a view, only for ')
    with pytest.raises(DataError) as error:
        merge(model(), view([], [], [], scale='left away'))
    assert str(error.value) == (
        "ATSSTTA needs to know how each view was made, but a view has no 'scale': add it to the meta_keys of "
        'PackDetInputs in tta_pipeline'
    )


def test_masks_are_refused():
    bare, masked = (view([[0, 0, 9, 9]], [0.5], [0]) for _ in range(2))
    masked.pred_instances.masks = torch.ones(1, 100, 200, dtype=torch.bool)
    with pytest.raises(DataError) as error:
        merge(model(), bare, masked)
    assert str(error.value) == (
        'ATSSTTA merges boxes by voting, which leaves no mask of a merged box, but the detections of a view '
        'have masks: test without --tta, or take a detector of boxes alone'
    )


def test_the_config_says_what_the_official_ones_say():
    """SCALES and SCALE_RANGES of the official yaml; the usual size first; the longer side's limit a size."""
    cfg = Config.fromfile(CONFIG)
    sides = (400, 500, 600, 640, 700, 900, 1000, 1100, 1200, 1300, 1400, 1800)
    lows = (96, 96, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0)
    highs = (10000, 10000, 10000, 10000, 10000, 10000, 10000, 256, 256, 192, 192, 96)
    ranges = list(zip(lows, highs, strict=True))
    scales = [(1333, 800)] + [(1333 if side < 800 else 3000, side) for side in sides]
    load, augment = cfg.tta_pipeline
    resizes, flips, (annotations,), (pack,) = augment.transforms
    assert load.type == 'LoadImageFromFile'
    assert [dict(resize) for resize in resizes] == [
        {'type': 'Resize', 'scale': scale, 'keep_ratio': True} for scale in scales
    ]
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert annotations.type == 'LoadAnnotations'
    assert {'scale', 'scale_factor', 'flip', 'flip_direction', 'img_id'} <= set(pack.meta_keys)
    tta = MODELS.build({**cfg.tta_model, 'module': Detector()})
    keys = [tuple(sorted(scale)) for scale in scales]
    assert tta.area_ranges == dict(zip(keys, [(0, float('inf')), *ranges], strict=True))
    assert (tta.vote_iou, tta.soft_floor, tta.max_per_img) == (0.66, 0.05, 1000)
