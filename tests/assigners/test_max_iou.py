"""MaxIoUAssigner against mmdet's class of the same name, label by label."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import BboxOverlaps2D
from mmdet.models.task_modules import MaxIoUAssigner as MMDetMaxIoUAssigner
from mmengine.structures import InstanceData
from scenes import KINDS, random_scene

from atss_ext.assigners import MaxIoUAssigner, PackedGts, PyramidPriors, rows

RETINA = {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, 'min_pos_iou': 0.0}


def assert_same(arguments, scene, ignored=True) -> None:
    given = scene.predictions, scene.gts, scene.ignored_instances if ignored else None
    ours = MaxIoUAssigner(**arguments).assign(*given)
    theirs = MMDetMaxIoUAssigner(**arguments).assign(*given)
    assert torch.equal(ours.gt_inds, theirs.gt_inds)
    assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(ours.max_overlaps, theirs.max_overlaps)
    assert ours.num_gts == theirs.num_gts


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(KINDS),
    count=st.integers(0, 40),
    side=st.integers(1, 260),
    ratios=st.sampled_from([(1.0,), (0.5, 1.0, 2.0)]),
    num_ignored=st.integers(0, 3),
    thresholds=st.sampled_from([(0.5, 0.4), (0.7, 0.3), (0.5, 0.5), (0.6, (0.1, 0.5)), (0.3, (0.0, 0.3))]),
    min_pos_iou=st.sampled_from([0.0, 0.2, 0.3, 0.5]),
    gt_max_assign_all=st.booleans(),
    match_low_quality=st.booleans(),
    ignore_iof_thr=st.sampled_from([-1, 0.3, 0.5]),
    ignore_wrt_candidates=st.booleans(),
)
def test_equals_mmdet(seed, kind, count, side, ratios, num_ignored, thresholds, **arguments):
    scene = random_scene(seed, kind, count, side, 200, num_ignored=num_ignored, ratios=ratios)
    arguments |= {'pos_iou_thr': thresholds[0], 'neg_iou_thr': thresholds[1]}
    assert_same(arguments, scene)


def test_the_scenes_hold_every_case():
    """Positives by threshold, by claim, claimed by several gts, background and ignored priors."""
    kinds = set()
    for seed in range(6):
        scene = random_scene(seed, 'mixed', 30, 200, 200)
        strict = MaxIoUAssigner(**RETINA, match_low_quality=False).assign(scene.predictions, scene.gts)
        claimed = MaxIoUAssigner(**RETINA).assign(scene.predictions, scene.gts)
        kinds |= {('strict', min(g, 1)) for g in strict.gt_inds.tolist()}
        kinds |= {('claimed', min(g, 1)) for g in claimed.gt_inds[strict.gt_inds <= 0].tolist()}
        changed = (strict.gt_inds > 0) & (strict.gt_inds != claimed.gt_inds)
        kinds |= {('overwritten', 1)} if changed.any() else set()
    assert kinds >= {
        ('strict', 1),
        ('strict', 0),
        ('strict', -1),
        ('claimed', 1),
        ('claimed', 0),
        ('claimed', -1),
        ('overwritten', 1),
    }


def test_the_last_of_several_claims_wins():
    # Both gts overlap the second prior most: of equal claims mmdet writes the later one last.
    priors = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 10, 10], [50.0, 50, 60, 60]])
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 9], [0.0, 0, 10, 6]]), labels=torch.tensor([4, 7]))
    result = MaxIoUAssigner(**RETINA).assign(InstanceData(priors=priors), gts)
    assert result.gt_inds.tolist() == [0, 2, 0]
    assert result.labels.tolist() == [-1, 7, -1]
    torch.testing.assert_close(result.max_overlaps, torch.tensor([0.16 / 0.6, 0.9, 0.0]))
    best = MaxIoUAssigner(**RETINA, low_quality_gt='best').assign(InstanceData(priors=priors), gts)
    assert best.gt_inds.tolist() == [0, 1, 0]


def test_batch_overlaps_are_those_with_the_own_gt():
    """Also of a prior that a gt claims which is not the one it overlaps most."""
    priors = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 10, 10], [50.0, 50, 60, 60]])
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 9], [0.0, 0, 10, 6]]), labels=torch.tensor([4, 7]))
    batch = MaxIoUAssigner(**RETINA).assign_batch(PyramidPriors(priors, [3]), PackedGts.from_instances([gts]))
    assert batch.assigned.tolist() == [[0, 2, 0]]
    torch.testing.assert_close(batch.ious, torch.tensor([[0.0, 0.6, 0.0]]))


def test_centers_outside_are_ignored():
    # Centres at x = 5, 10 (on the side), 9.995 (less than 0.01 inside) and 9.98 of a gt that ends at 10.
    priors = torch.tensor([[x, 0, x + 10, 10] for x in (0.0, 5.0, 4.995, 4.98)])
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([0]))
    thresholds = {'pos_iou_thr': 0.3, 'neg_iou_thr': 0.2}
    plain = MaxIoUAssigner(**thresholds).assign(InstanceData(priors=priors), gts)
    inside = MaxIoUAssigner(**thresholds, center_inside=True).assign(InstanceData(priors=priors), gts)
    assert plain.gt_inds.tolist() == [1, 1, 1, 1]
    assert inside.gt_inds.tolist() == [1, -1, -1, 1]
    assert inside.labels.tolist() == [0, -1, -1, 0]


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_other_dtypes(dtype):
    scene = random_scene(2, 'mixed', 20, 160, 200)
    scene.priors, scene.boxes = scene.priors.to(dtype), scene.boxes.to(dtype)
    ours = MaxIoUAssigner(**RETINA).assign(scene.predictions, scene.gts)
    if dtype == torch.float16:  # computed in float32
        scene.priors, scene.boxes = scene.priors.float(), scene.boxes.float()
    theirs = MMDetMaxIoUAssigner(**RETINA).assign(scene.predictions, scene.gts)
    assert torch.equal(ours.gt_inds, theirs.gt_inds)
    assert torch.equal(ours.max_overlaps, theirs.max_overlaps)


class HalvedIoU(BboxOverlaps2D):
    """Another order than IoU's: wide gts count half."""

    def __call__(self, bboxes1, bboxes2, mode='iou', is_aligned=False):
        overlaps = super().__call__(bboxes1, bboxes2, mode, is_aligned)
        return overlaps * torch.where(bboxes1[:, 2] - bboxes1[:, 0] > 40, 0.5, 1.0)[:, None]


def test_another_calculator_is_asked():
    scene = random_scene(3, 'mixed', 20, 160, 200)
    ours, theirs = MaxIoUAssigner(**RETINA), MMDetMaxIoUAssigner(**RETINA)
    plain = ours.assign(scene.predictions, scene.gts)
    ours.iou_calculator = theirs.iou_calculator = HalvedIoU()
    halved = ours.assign(scene.predictions, scene.gts)
    assert torch.equal(halved.gt_inds, theirs.assign(scene.predictions, scene.gts).gt_inds)
    assert not torch.equal(halved.gt_inds, plain.gt_inds)


@pytest.mark.parametrize('elements', [1, 3000, 2**30])
@pytest.mark.parametrize('free', [True, False])
def test_steps_do_not_matter(monkeypatch, elements, free):
    """One gt at a time, a few across images, and all of a batch in one step."""
    scenes = [random_scene(seed, KINDS[seed % 4], count, 96, 128) for seed, count in enumerate((7, 0, 12, 1))]
    gts = PackedGts.from_instances([scene.gts for scene in scenes])
    expected = [MMDetMaxIoUAssigner(**RETINA).assign(s.predictions, s.gts).gt_inds for s in scenes]
    monkeypatch.setattr(rows, 'CPU_ELEMENTS', elements)
    monkeypatch.setattr(rows, 'DEVICE_ELEMENTS', elements)
    monkeypatch.setattr(rows, 'reads_are_free', lambda device: free)
    priors = PyramidPriors(scenes[0].priors, scenes[0].sizes)
    batch = MaxIoUAssigner(**RETINA).assign_batch(priors, gts)
    assert torch.equal(batch.assigned, torch.stack(expected))


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'perm_repeat_gt_cfg': {'iou_thr': 0.7}}, 'moves repeated gts at random, which cannot be done'),
        ({'neg_iou_thr': (0.1, 0.2, 0.3)}, r'a number or a pair \(lowest, highest\), got \(0.1, 0.2, 0.3\)'),
        ({'low_quality_gt': 'first'}, "must be 'claimant' or 'best', got 'first'"),
    ],
)
def test_bad_settings_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        MaxIoUAssigner(**RETINA | arguments)
