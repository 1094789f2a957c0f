"""ATSSAssigner against mmdet's class and against a literal transcription of the algorithm."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import ATSSAssigner as MMDetATSSAssigner
from mmdet.models.task_modules import BboxOverlaps2D
from mmengine.structures import InstanceData
from scenes import (
    KINDS,
    Scene,
    kth_place_ties,
    literal_atss,
    literal_candidates,
    literal_ignored,
    pyramid_priors,
    random_boxes,
    random_scene,
    threshold_in_rounding,
)

from atss_ext.assigners import ATSSAssigner, PackedGts, PyramidPriors
from atss_ext.registry import TASK_UTILS


def scenes(max_gts: int = 40, max_side: int = 320):
    return st.builds(
        random_scene,
        seed=st.integers(0, 2**31 - 1),
        kind=st.sampled_from(KINDS),
        count=st.integers(0, max_gts),
        height=st.integers(1, max_side),
        width=st.integers(1, max_side),
        levels=st.integers(1, 5),
        num_ignored=st.integers(0, 3),
    )


def both(scene: Scene, k: int, ignore_iof_thr: float = -1, dtype=torch.float32):
    ignored = scene.ignored_instances if ignore_iof_thr > 0 else None
    arguments = scene.predictions, scene.sizes, scene.gts, ignored
    theirs = MMDetATSSAssigner(topk=k, ignore_iof_thr=ignore_iof_thr).assign(*arguments)
    return ATSSAssigner(topk=k, ignore_iof_thr=ignore_iof_thr).assign(*arguments), theirs


def assert_equal_but_for_ties(scene: Scene, k: int, ours, theirs, ignore_iof_thr: float = -1) -> None:
    """Equal everywhere, or different only where a tied gt (or one at its threshold) has its candidates."""
    different = (
        (ours.gt_inds != theirs.gt_inds)
        | (ours.labels != theirs.labels)
        | (ours.max_overlaps != theirs.max_overlaps)
    )
    if not different.any():
        return
    ignored = literal_ignored(scene, ignore_iof_thr)
    excused = kth_place_ties(scene, k, ignored) | threshold_in_rounding(scene, k, ignored)
    # A prior changes hands when either claimant's candidates changed: one excused gt a prior is enough.
    for index in different.nonzero()[:, 0].tolist():
        claimants = {int(r[index]) - 1 for r in (ours.gt_inds, theirs.gt_inds) if r[index] > 0}
        assert any(excused[gt] for gt in claimants), f'prior {index} differs without a tie: {claimants}'


@settings(max_examples=2500, deadline=None, derandomize=True)
@given(scene=scenes(), k=st.integers(1, 12), ignore_iof_thr=st.sampled_from([-1, 0.3, 0.5]))
def test_equals_mmdet(scene, k, ignore_iof_thr):
    assert_equal_but_for_ties(scene, k, *both(scene, k, ignore_iof_thr), ignore_iof_thr)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1), kind=st.sampled_from(KINDS[:4]), count=st.integers(100, 500))
def test_equals_mmdet_with_hundreds_of_gts(seed, kind, count):
    scene = random_scene(seed, kind, count, 416, 640)
    assert_equal_but_for_ties(scene, 9, *both(scene, 9))


def test_most_scenes_need_no_excuse():
    exact = 0
    for seed in range(200):
        scene = random_scene(seed, 'mixed', 1 + seed % 30, 250, 330)
        ours, theirs = both(scene, 9)
        exact += torch.equal(ours.gt_inds, theirs.gt_inds) and torch.equal(
            ours.max_overlaps, theirs.max_overlaps
        )
    assert exact == 200


@settings(max_examples=120, deadline=None, derandomize=True)
@given(scene=scenes(max_gts=8, max_side=120), k=st.integers(1, 10))
def test_equals_the_literal_algorithm_ties_included(scene, k):
    if threshold_in_rounding(scene, k).any():  # float32 against Python floats: the rounding decides
        scene.priors, scene.boxes = scene.priors.double(), scene.boxes.double()
    ours = ATSSAssigner(topk=k).assign(scene.predictions, scene.sizes, scene.gts)
    expected = literal_atss(scene, k)
    different = [i for i, gt in enumerate(expected) if gt != int(ours.gt_inds[i])]
    claimants = {g - 1 for i in different for g in (expected[i], int(ours.gt_inds[i])) if g > 0}
    rounding = threshold_in_rounding(scene, k)
    assert all(rounding[gt] for gt in claimants)


def test_lower_index_wins_a_distance_tie():
    # The gt's centre lies midway between four cells: of four equal distances k = 2 takes the first two.
    priors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16]])
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 16, 16]]), labels=torch.tensor([5]))
    result = ATSSAssigner(topk=2).assign(InstanceData(priors=priors), [4], gts)
    assert result.gt_inds.tolist() == [1, 1, 0, 0]
    assert result.labels.tolist() == [5, 5, -1, -1]
    assert result.max_overlaps.tolist() == [0.25, 0.25, -1e8, -1e8]


def test_lower_gt_wins_an_iou_tie():
    priors = torch.tensor([[0.0, 0, 8, 8]])
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 8, 8]] * 3), labels=torch.tensor([2, 1, 0]))
    result = ATSSAssigner(topk=1).assign(InstanceData(priors=priors), [1], gts)
    assert result.gt_inds.tolist() == [1]
    assert result.labels.tolist() == [2]


def test_one_candidate_has_its_own_iou_as_threshold():
    # mmdet's n - 1 makes the deviation of one value NaN, and the gt loses its only prior.
    priors = torch.tensor([[0.0, 0, 8, 8]])
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 8, 6]]), labels=torch.tensor([0]))
    assert ATSSAssigner(topk=9).assign(InstanceData(priors=priors), [1], gts).gt_inds.tolist() == [1]
    assert MMDetATSSAssigner(topk=9).assign(InstanceData(priors=priors), [1], gts).gt_inds.tolist() == [0]


@pytest.mark.parametrize('count', [0, 1, 40])
def test_float64_equals_mmdet(count):
    scene = random_scene(3, 'mixed', count, 200, 300)
    scene.priors, scene.boxes = scene.priors.double(), scene.boxes.double()
    ours, theirs = both(scene, 9)
    assert torch.equal(ours.gt_inds, theirs.gt_inds)
    assert ours.max_overlaps.dtype == torch.float64
    assert torch.equal(ours.max_overlaps, theirs.max_overlaps)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(dtype):
    scene = random_scene(4, 'mixed', 25, 200, 300)
    scene.priors, scene.boxes = scene.priors.to(dtype), scene.boxes.to(dtype)
    ours = ATSSAssigner(topk=9).assign(scene.predictions, scene.sizes, scene.gts)
    scene.priors, scene.boxes = scene.priors.float(), scene.boxes.float()
    theirs = MMDetATSSAssigner(topk=9).assign(scene.predictions, scene.sizes, scene.gts)
    assert_equal_but_for_ties(scene, 9, ours, theirs)


def test_non_contiguous_input():
    scene = random_scene(5, 'mixed', 25, 200, 300)
    expected = ATSSAssigner().assign(scene.predictions, scene.sizes, scene.gts)
    scene.priors = torch.stack([scene.priors, -scene.priors], dim=2)[..., 0]
    scene.boxes = scene.boxes.t().contiguous().t()
    assert not scene.priors.is_contiguous()
    assert not scene.boxes.is_contiguous()
    ours = ATSSAssigner().assign(scene.predictions, scene.sizes, scene.gts)
    assert torch.equal(ours.gt_inds, expected.gt_inds)


class HalvedIoU(BboxOverlaps2D):
    """A calculator whose order differs from IoU's: wide boxes count half."""

    def __call__(self, bboxes1, bboxes2, mode='iou', is_aligned=False):
        wide = (bboxes2[:, 2] - bboxes2[:, 0]) > 40
        return super().__call__(bboxes1, bboxes2, mode, is_aligned) * torch.where(wide, 0.5, 1.0)


class PairwiseOnly:
    """A calculator that cannot do aligned boxes."""

    def __call__(self, bboxes1, bboxes2, mode='iou'):
        return BboxOverlaps2D()(bboxes1, bboxes2, mode).sqrt()


@pytest.mark.parametrize('calculator', [HalvedIoU, PairwiseOnly])
def test_custom_iou_calculator_equals_mmdet(calculator):
    scene = random_scene(6, 'crowded', 20, 128, 128, num_ignored=2)
    ours, theirs = ATSSAssigner(ignore_iof_thr=0.4), MMDetATSSAssigner(topk=9, ignore_iof_thr=0.4)
    ours.iou_calculator = theirs.iou_calculator = calculator()
    arguments = scene.predictions, scene.sizes, scene.gts, scene.ignored_instances
    plain = ATSSAssigner(ignore_iof_thr=0.4).assign(*arguments)
    result, expected = ours.assign(*arguments), theirs.assign(*arguments)
    assert torch.equal(result.gt_inds, expected.gt_inds)
    assert torch.equal(result.max_overlaps, expected.max_overlaps)
    assert not torch.equal(result.max_overlaps, plain.max_overlaps)


def test_iou_calculator_from_config():
    config = {
        'type': 'atss_ext.ATSSAssigner',
        'iou_calculator': {'type': 'mmdet.BboxOverlaps2D', 'scale': 2.0},
    }
    assert TASK_UTILS.build(config).iou_calculator.scale == 2.0


def test_several_anchors_a_location():
    scene = random_scene(7, 'mixed', 10, 160, 160, ratios=(0.5, 1.0, 2.0))
    per_location = ATSSAssigner(topk=3).assign(scene.predictions, scene.sizes, scene.gts)
    nine = MMDetATSSAssigner(topk=9).assign(scene.predictions, scene.sizes, scene.gts)
    per_level = ATSSAssigner(topk=3, candidates='per_level')
    three = per_level.assign(scene.predictions, scene.sizes, scene.gts)
    expected = literal_atss(scene, 3)
    assert torch.equal(per_location.gt_inds, nine.gt_inds)
    # Anchors of one location share a centre, so mmdet's own choice of 3 is a tie; the literal rule decides.
    assert three.gt_inds.tolist() == expected
    assert not torch.equal(three.gt_inds, per_location.gt_inds)


def pack(scene_list) -> PackedGts:
    return PackedGts.from_instances(
        [scene.gts for scene in scene_list], [scene.ignored_instances for scene in scene_list]
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    thr=st.sampled_from([-1, 0.4]),
)
def test_batch_equals_image_by_image(seed, counts, thr):
    images = [
        random_scene(seed + i, KINDS[i % len(KINDS)], n, 192, 256, num_ignored=i % 3)
        for i, n in enumerate(counts)
    ]
    assigner = ATSSAssigner(ignore_iof_thr=thr)
    batch = assigner.assign_batch(PyramidPriors(images[0].priors, images[0].sizes), pack(images))
    for row, overlaps, scene in zip(batch.assigned, batch.ious, images, strict=True):
        alone = assigner.assign(scene.predictions, scene.sizes, scene.gts, scene.ignored_instances)
        assert torch.equal(row, alone.gt_inds)
        assert torch.equal(overlaps[row > 0], alone.max_overlaps[row > 0])
        assert not overlaps[row <= 0].any()


@pytest.mark.parametrize('seed', range(10))
def test_padding_takes_no_part(seed):
    """Images of many shapes in one batch: priors in the padding are left out, as mmdet leaves them out."""
    generator = torch.Generator().manual_seed(seed)
    priors, sizes = pyramid_priors(256, 320)
    shapes = [(256, 320), (130, 320), (256, 77), (1, 1), (40, 300)]
    centers = (priors[:, :2] + priors[:, 2:]) / 2
    valid = torch.stack([(centers[:, 0] < w) & (centers[:, 1] < h) for h, w in shapes])
    gts = [
        InstanceData(bboxes=random_boxes('mixed', 12, h, w, generator), labels=torch.arange(12))
        for h, w in shapes
    ]
    packed = PackedGts.from_instances(gts)
    batch = ATSSAssigner().assign_batch(PyramidPriors(priors, sizes), packed, valid)
    for row, mask, instances in zip(batch.assigned, valid, gts, strict=True):
        counts = [int(level.sum()) for level in mask.split(sizes)]
        alone = MMDetATSSAssigner(topk=9).assign(InstanceData(priors=priors[mask]), counts, instances)
        scene = Scene(priors[mask], counts, instances.bboxes, instances.labels, priors[:0])
        mine = ATSSAssigner().assign(InstanceData(priors=priors[mask]), counts, instances)
        assert torch.equal(row[mask], mine.gt_inds)
        assert_equal_but_for_ties(scene, 9, mine, alone)
        assert (row[~mask] == -1).all()


def test_ensure_positive_rescues_gts_and_only_them():
    scene = random_scene(11, 'tiny', 30, 128, 128)
    scene.boxes = torch.cat(
        [scene.boxes, random_boxes('mixed', 10, 128, 128, torch.Generator().manual_seed(1))]
    )
    scene.labels = torch.arange(40)
    arguments = scene.predictions, scene.sizes, scene.gts
    plain, ensured = ATSSAssigner().assign(*arguments), ATSSAssigner(ensure_positive=True).assign(*arguments)
    without = set(range(1, 41)) - set(plain.gt_inds.tolist())
    assert len(without) > 5
    assert set(ensured.gt_inds.tolist()) >= set(range(1, 41))
    changed = ensured.gt_inds[plain.gt_inds != ensured.gt_inds].tolist()
    assert set(changed) == without
    assert len(changed) == len(without)
    for gt in without:
        prior = int((ensured.gt_inds == gt).nonzero()[0, 0])
        assert prior in literal_candidates(scene, gt - 1, 9, set())


def test_ensure_positive_never_takes_a_last_prior():
    # Two identical gts share the only prior: nothing is left for the second.
    priors = torch.tensor([[0.0, 0, 8, 8]])
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 8, 8]] * 2), labels=torch.tensor([0, 1]))
    result = ATSSAssigner(ensure_positive=True).assign(InstanceData(priors=priors), [1], gts)
    assert result.gt_inds.tolist() == [1]
    # With a second prior inside both, each gets one.
    priors = torch.tensor([[0.0, 0, 8, 8], [1.0, 1, 8, 8]])
    result = ATSSAssigner(ensure_positive=True).assign(InstanceData(priors=priors), [2], gts)
    assert sorted(result.gt_inds.tolist()) == [1, 2]


def test_nothing_depends_on_the_batch_beside():
    scene = random_scene(12, 'mixed', 15, 128, 160)
    other = random_scene(13, 'crowded', 150, 128, 160)
    priors = PyramidPriors(scene.priors, scene.sizes)
    alone = ATSSAssigner().assign_batch(priors, pack([scene]))
    beside = ATSSAssigner().assign_batch(priors, pack([other, scene, other]))
    assert torch.equal(alone.assigned[0], beside.assigned[1])
    assert torch.equal(alone.ious[0], beside.ious[1])


BAD_BOX = [[0.0, 0, 8, 8], [0.0, 5, 8, 1]]


@pytest.mark.parametrize(
    ('boxes', 'sentence'),
    [
        (BAD_BOX, r'gt box 1 of image 0 of the batch is \[0.0, 5.0, 8.0, 1.0\]'),
        ([[0.0, 0, float('nan'), 8]], r'gt box 0 of image 0 of the batch is \[0.0, 0.0, nan, 8.0\]'),
        ([[0.0, 0, float('inf'), 8]], 'must be finite'),
    ],
)
def test_bad_boxes_are_named(boxes, sentence):
    gts = InstanceData(bboxes=torch.tensor(boxes), labels=torch.zeros(len(boxes), dtype=torch.long))
    with pytest.raises(ValueError, match=sentence):
        PackedGts.from_instances([gts])


def test_bad_box_of_a_later_image_is_counted_within_its_image():
    good = InstanceData(bboxes=torch.zeros(3, 4), labels=torch.zeros(3, dtype=torch.long))
    bad = InstanceData(bboxes=torch.tensor(BAD_BOX), labels=torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match='gt box 1 of image 1'):
        PackedGts.from_instances([good, bad])


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'level_sizes': [3, 3]}, r'level sizes \[3, 3\] add up to 6, but there are 4 priors'),
        (
            {'boxes': torch.zeros(4, 5)},
            r'priors must be a float tensor \[N, 4\], got torch.float32 \(4, 5\)',
        ),
        ({'boxes': torch.zeros(4, 4, dtype=torch.long)}, 'got torch.int64'),
        ({'per_location': 0}, 'per_location must be at least 1, got 0'),
    ],
)
def test_bad_priors_are_named(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        PyramidPriors(**{'boxes': torch.zeros(4, 4), 'level_sizes': [4], **change})


@pytest.mark.parametrize(
    ('arguments', 'sentence'), [({'topk': 0}, 'got 0'), ({'candidates': 'all'}, "got 'all'")]
)
def test_bad_settings_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        ATSSAssigner(**arguments)


def test_anchors_are_counted_where_a_border_left_some_out():
    """mmdet's heads filter anchors by ``allowed_border`` first: near an edge one of three may stay."""
    scene = random_scene(3, 'mixed', 6, 160, 200, ratios=(0.5, 1.0, 2.0))
    limit = torch.tensor([200, 160])
    inside = (scene.priors[:, :2] >= 0).all(1) & (scene.priors[:, 2:] < limit).all(1)
    assert 0 < int(inside.sum()) < len(inside)
    sizes = [int(level.sum()) for level in inside.split(scene.sizes)]
    kept = InstanceData(priors=scene.priors[inside])
    ours = ATSSAssigner(topk=4).assign(kept, sizes, scene.gts)
    thrice = ATSSAssigner(topk=12, candidates='per_level').assign(kept, sizes, scene.gts)
    once = ATSSAssigner(topk=4, candidates='per_level').assign(kept, sizes, scene.gts)
    assert torch.equal(ours.gt_inds, thrice.gt_inds)
    assert not torch.equal(ours.gt_inds, once.gt_inds)
