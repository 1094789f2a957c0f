"""SpatialScaleAssigner against mmdet's FCOSHead, and literal cases."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.dense_heads import FCOSHead
from mmengine.structures import InstanceData
from scenes import KINDS, STRIDES, literal_iou, pyramid_priors, random_scene

from atss_ext.assigners import PackedGts, PyramidPriors, SpatialScaleAssigner, rows
from atss_ext.assigners.base import AssignmentError

INF = float('inf')
RANGES = {
    1: ((-1, 40),),
    3: ((-1, 32), (32, 64), (48, INF)),  # ranges may overlap
    5: ((-1, 64), (64, 128), (128, 256), (256, 512), (512, INF)),
}


def head(levels: int, radius: float | None) -> FCOSHead:
    return FCOSHead(
        num_classes=80,
        in_channels=4,
        feat_channels=4,
        stacked_convs=1,
        norm_cfg=None,
        strides=STRIDES[:levels],
        regress_ranges=RANGES[levels],
        center_sampling=radius is not None,
        center_sample_radius=radius or 1.5,
    )


HEADS = {(levels, radius): head(levels, radius) for levels in RANGES for radius in (None, 0.75, 1.5)}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seeds=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3),
    counts=st.lists(st.integers(0, 30), min_size=3, max_size=3),
    kind=st.sampled_from(KINDS),
    sides=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    setting=st.sampled_from(list(HEADS)),
)
def test_labels_equal_those_of_mmdets_fcos_head(seeds, counts, kind, sides, setting):
    levels, radius = setting
    images = [random_scene(s, kind, n, *sides, levels=levels) for s, n in zip(seeds, counts, strict=False)]
    priors, sizes = images[0].priors, images[0].sizes
    gts = [image.gts for image in images]
    points = [(level[:, :2] + level[:, 2:]) / 2 for level in priors.split(sizes)]
    labels, _ = HEADS[setting].get_targets(points, gts)
    expected = torch.cat([level.view(len(images), -1) for level in labels], 1)
    assigner = SpatialScaleAssigner(RANGES[levels], radius, center_margin=0)
    strides = [(float(s), float(s)) for s in STRIDES[:levels]]
    pyramid = PyramidPriors(priors, sizes, strides=strides)
    batch = assigner.assign_batch(pyramid, PackedGts.from_instances(gts))
    for row, wanted, image in zip(batch.assigned, expected, gts, strict=True):
        found = torch.full_like(wanted, 80)
        found[row > 0] = image.labels[row[row > 0] - 1]
        assert torch.equal(found, wanted)


@pytest.mark.parametrize('elements', [1, 3000, 2**30])
@pytest.mark.parametrize('free', [True, False])
def test_steps_do_not_matter(monkeypatch, elements, free):
    """Nor whether gts of the wrong size are left out first, which is done where it costs no wait."""
    images = [
        random_scene(seed, KINDS[seed % 4], count, 200, 260) for seed, count in enumerate((9, 0, 30, 1))
    ]
    gts = PackedGts.from_instances([image.gts for image in images])
    arguments = PyramidPriors(images[0].priors, images[0].sizes), gts
    expected = SpatialScaleAssigner().assign_batch(*arguments)
    monkeypatch.setattr(rows, 'CPU_ELEMENTS', elements)
    monkeypatch.setattr(rows, 'DEVICE_ELEMENTS', elements)
    monkeypatch.setattr(rows, 'reads_are_free', lambda device: free)
    batch = SpatialScaleAssigner().assign_batch(*arguments)
    assert torch.equal(batch.assigned, expected.assigned)
    assert torch.equal(batch.ious, expected.ious)
    assert (batch.assigned > 0).sum() > 100


def test_the_scenes_have_positives_on_every_level():
    priors, sizes = pyramid_priors(800, 800)
    scenes = [random_scene(seed, 'mixed', 60, 800, 800) for seed in range(3)]
    boxes = torch.cat([scenes[0].boxes, torch.tensor([[0.0, 0, 799, 700], [10.0, 10, 400, 500]])])
    gts = InstanceData(bboxes=boxes, labels=torch.zeros(62, dtype=torch.long))
    result = SpatialScaleAssigner().assign(InstanceData(priors=priors), sizes, gts)
    assert all((level > 0).any() for level in result.gt_inds.split(sizes))


def points(*centers) -> torch.Tensor:
    """Priors of 2 x 2 pixels around these centres."""
    at = torch.tensor(centers, dtype=torch.float32)
    return torch.cat([at - 1, at + 1], 1)


def assign(priors, boxes, **arguments):
    gts = InstanceData(bboxes=torch.tensor(boxes), labels=torch.arange(len(boxes)))
    settings = {'regress_ranges': ((-1, INF),), **arguments}
    return SpatialScaleAssigner(**settings).assign(InstanceData(priors=priors), [len(priors)], gts).gt_inds


def test_smallest_area_wins_and_of_equal_ones_the_lower_gt():
    boxes = [[0.0, 0, 20, 20], [0.0, 0, 10, 20], [0.0, 0, 20, 10], [0.0, 10, 20, 20]]
    assert assign(points((5, 5), (15, 15), (5, 15), (30, 30)), boxes).tolist() == [2, 4, 2, 0]


def test_ranges_are_inclusive():
    priors = points((8, 8), (4, 8), (3, 8))
    box = [[0.0, 0, 16, 16]]  # farthest sides: 8, 12 and 13 pixels
    assert assign(priors, box, regress_ranges=((8, 12),)).tolist() == [1, 1, 0]
    assert assign(priors, box, regress_ranges=((-1, 8),)).tolist() == [1, 0, 0]
    assert assign(priors, box, regress_ranges=((12.5, INF),)).tolist() == [0, 0, 1]


def test_the_margin_is_a_hundredth_of_a_pixel():
    priors = points((0.01, 8), (0.02, 8), (0, 8))
    assert assign(priors, [[0.0, 0, 16, 16]]).tolist() == [0, 1, 0]
    assert assign(priors, [[0.0, 0, 16, 16]], center_margin=0).tolist() == [1, 1, 0]


def test_center_sampling_takes_both_sides_of_a_stride():
    priors = points((20, 20), (26, 20), (20, 30), (26, 30), (20, 33))
    box = [[0.0, 0, 40, 40]]
    assigner = {'center_sampling_radius': 1.5}
    # 1.5 strides are 6 pixels across and 12 down; (26, 20) lies on the border.
    assert assign(priors, box, **assigner, strides=[(4, 8)]).tolist() == [1, 0, 1, 0, 0]
    assert assign(priors, box, **assigner, strides=[4.5]).tolist() == [1, 1, 0, 0, 0]


def test_legacy_areas_can_turn_the_order():
    # 0.5 x 40 = 20 and 5 x 5 = 25; with one more pixel a side 61.5 and 36.
    boxes = [[4.0, 0, 4.5, 40], [2.0, 2, 7, 7]]
    assert assign(points((4.25, 4)), boxes).tolist() == [1]
    assert assign(points((4.25, 4)), boxes, plus_one=True).tolist() == [2]


def test_overlaps_are_those_of_priors_with_their_gt():
    scene = random_scene(4, 'mixed', 30, 200, 260, levels=3)
    assigner = SpatialScaleAssigner(RANGES[3])
    gts = PackedGts.from_instances([scene.gts])
    batch = assigner.assign_batch(PyramidPriors(scene.priors, scene.sizes), gts)
    positives = (batch.assigned[0] > 0).nonzero()[:, 0].tolist()
    assert len(positives) > 50
    for prior in positives:
        box = scene.boxes[batch.assigned[0, prior] - 1].double().tolist()
        iou = literal_iou(scene.priors[prior].double().tolist(), box)
        assert batch.ious[0, prior].item() == pytest.approx(iou, abs=1e-6)
    assert not batch.ious[batch.assigned <= 0].any()


def test_ranges_that_do_not_match_the_levels_are_named():
    scene = random_scene(0, 'mixed', 3, 64, 64, levels=4)
    with pytest.raises(AssignmentError, match=r'has 5 regress_ranges .* but there are 4 levels: give each'):
        SpatialScaleAssigner().assign(scene.predictions, scene.sizes, scene.gts)


def test_center_sampling_without_strides_is_named():
    scene = random_scene(0, 'mixed', 3, 64, 64)
    assigner = SpatialScaleAssigner(center_sampling_radius=1.5)
    with pytest.raises(AssignmentError, match='SpatialScaleAssigner measures distances in strides'):
        assigner.assign(scene.predictions, scene.sizes, scene.gts)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'regress_ranges': ((64, 64),)}, r'pairs \(lowest, highest\) of distances, got \(64, 64\)'),
        ({'regress_ranges': ((1, 2, 3),)}, r'got \(1, 2, 3\)'),
        ({'center_margin': -0.5}, 'center_margin must not be negative, got -0.5'),
        ({'center_sampling_radius': 0}, 'must be positive, or None for no center sampling, got 0'),
    ],
)
def test_bad_settings_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        SpatialScaleAssigner(**arguments)
