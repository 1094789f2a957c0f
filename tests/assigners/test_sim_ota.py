"""SimOTAAssigner against mmdet's class, alone and in heads."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import SimOTAAssigner as MMDetSimOTAAssigner
from mmengine.structures import InstanceData
from predicted_heads import assert_same_losses, assert_same_losses_in_our_head
from predicted_scenes import batch_of, cost_in_doubt, different, predicted_scene, sim_ota_cost
from scenes import KINDS

from atss_ext.assigners import SimOTAAssigner
from atss_ext.assigners.base import AssignmentError
from atss_ext.assigners.calls import assign_batch
from atss_ext.ops import native
from atss_ext.registry import TASK_UTILS

pytestmark = pytest.mark.filterwarnings('ignore:.*torch.cuda.amp.autocast.*:FutureWarning')


def both(scene, **settings):
    arguments = scene.instances(points=True, logits=False), scene.gts
    return SimOTAAssigner(**settings).assign(*arguments), MMDetSimOTAAssigner(**settings).assign(*arguments)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(KINDS),
    count=st.integers(0, 30),
    size=st.tuples(st.integers(8, 200), st.integers(8, 200)),
    levels=st.integers(1, 5),
    topk=st.integers(1, 12),
    saturated=st.booleans(),
)
def test_equals_mmdet(seed, kind, count, size, levels, topk, saturated):
    scene = predicted_scene(seed, kind, count, *size, levels, saturated)
    ours, theirs = both(scene, candidate_topk=topk)
    doubt = cost_in_doubt(*sim_ota_cost(scene), topk)
    assert not (different(ours, theirs) & ~doubt).any()


def test_most_scenes_need_no_excuse():
    same = positives = 0
    for seed in range(80):
        ours, theirs = both(predicted_scene(seed, 'mixed', 1 + seed % 30))
        same += not different(ours, theirs).any()
        positives += int((ours.gt_inds > 0).sum())
    assert same >= 78
    assert positives > 2000


@pytest.mark.parametrize(
    ('change', 'names'),
    [
        ({'iou_weight': 0.0}, {'iou_weight': 0}),
        ({'cls_weight': 0.0}, {'cls_weight': 0}),
        ({'center_radius': 0.5}, {'radius': 0.5}),
        ({'candidate_topk': 300}, {}),
    ],
)
def test_settings_equal_mmdet(change, names):
    same = 0
    for seed in range(15):
        scene = predicted_scene(seed, 'mixed', 8, 120, 120)
        ours, theirs = both(scene, **change)
        doubt = cost_in_doubt(*sim_ota_cost(scene, **names), change.get('candidate_topk', 10))
        assert not (different(ours, theirs) & ~doubt).any()
        same += not different(ours, theirs).any()
    assert same >= 5


def test_literal_values(monkeypatch):
    """Costs by hand, natively and in PyTorch.

    The IoUs with the first gt add up to 1.5, so that it takes one prior; that of the second is alone. The
    third prior lies outside of both.
    """
    points = torch.tensor([[4.0, 4, 8, 8], [12, 12, 8, 8], [90, 90, 8, 8]])
    predictions = InstanceData(
        priors=points,
        scores=torch.tensor([[0.5, 0.1], [0.6, 0.2], [0.5, 0.5]]),
        bboxes=torch.tensor([[0.0, 0, 16, 16], [0, 0, 16, 8], [0, 0, 16, 16]]),
    )
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 16, 16]]), labels=torch.tensor([0]))
    for devices in (native.DEVICES, frozenset()):
        monkeypatch.setattr(native, 'DEVICES', devices)
        # -log 0.5 - log 0.9 + 0 = 0.80 against -log 0.6 - log 0.8 - 3 log 0.5 = 2.81
        result = SimOTAAssigner().assign(predictions, gts)
        assert result.gt_inds.tolist() == [1, 0, 0]
        assert result.labels.tolist() == [0, -1, -1]
        assert result.max_overlaps.tolist() == [1.0, -1e5, -1e5]
        # Without the overlaps -log 0.6 - log 0.8 = 0.73 is less.
        assert SimOTAAssigner(iou_weight=0).assign(predictions, gts).gt_inds.tolist() == [0, 1, 0]


def test_an_impossible_score_costs_a_hundred(monkeypatch):
    """As torch clamps the logarithm: 100 are more than no overlap (48) and a score of 1e-13 (30)."""
    predictions = InstanceData(
        priors=torch.tensor([[4.0, 4, 8, 8], [12, 12, 8, 8]]),
        scores=torch.tensor([[1.0, 1.0], [1e-13, 0.0]]),
        bboxes=torch.tensor([[0.0, 0, 16, 16], [40, 40, 50, 50]]),
    )
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 16, 16]]), labels=torch.tensor([0]))
    assert MMDetSimOTAAssigner().assign(predictions, gts).gt_inds.tolist() == [0, 1]
    for devices in (native.DEVICES, frozenset()):
        monkeypatch.setattr(native, 'DEVICES', devices)
        assert SimOTAAssigner().assign(predictions, gts).gt_inds.tolist() == [0, 1]


def test_a_contested_prior_goes_to_the_cheapest_gt():
    """Both gts take the one candidate; for the second its IoU is higher."""
    predictions = InstanceData(
        priors=torch.tensor([[8.0, 8, 8, 8]]),
        scores=torch.tensor([[0.5]]),
        bboxes=torch.tensor([[0.0, 0, 16, 16]]),
    )
    boxes = torch.tensor([[0.0, 0, 16, 24], [0, 0, 16, 16], [0, 0, 16, 16]])
    result = SimOTAAssigner().assign(predictions, InstanceData(bboxes=boxes, labels=torch.zeros(3).long()))
    assert result.gt_inds.tolist() == [2]
    assert result.max_overlaps.tolist() == [1.0]


@pytest.mark.parametrize('logits', [True, False])
def test_a_batch_is_its_images(logits):
    scenes = [predicted_scene(seed, count=count) for seed, count in enumerate((9, 0, 23))]
    valid = torch.rand(3, len(scenes[0].priors), generator=torch.Generator().manual_seed(0)) < 0.8
    arguments = batch_of(scenes, logits)
    ours = SimOTAAssigner().assign_batch(**arguments, valid=valid)
    theirs = assign_batch(MMDetSimOTAAssigner(), **arguments, valid=valid)
    assert torch.equal(ours.assigned, theirs.assigned)
    assert torch.equal(ours.ious, theirs.ious)
    assert (ours.assigned[~valid] == -1).all()
    for image, scene in enumerate(scenes):
        alone = SimOTAAssigner().assign_batch(**batch_of([scene], logits), valid=valid[image : image + 1])
        assert torch.equal(alone.assigned[0], ours.assigned[image])
        assert torch.equal(alone.ious[0], ours.ious[image])


def test_without_gts_or_candidates():
    scene = predicted_scene(0, count=0)
    far = predicted_scene(0, count=2)
    far.boxes += 1e5
    for one in (scene, far):
        ours, theirs = both(one)
        for name in ('gt_inds', 'labels', 'max_overlaps'):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_losses_of_yoloxs_head_equal_mmdets():
    assert_same_losses('SimOTAAssigner', {})


def test_losses_of_our_head_equal_those_with_mmdets_class():
    assert_same_losses_in_our_head('SimOTAAssigner', {})


def test_builds_from_config():
    built = TASK_UTILS.build({'type': 'atss_ext.SimOTAAssigner', 'center_radius': 1.5})
    assert (built.center_radius, built.candidate_topk, built.needs_predictions) == (1.5, 10, True)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'candidate_topk': 0}, 'candidate_topk of SimOTAAssigner must be at least 1, got 0'),
        ({'center_radius': -1}, 'center_radius of SimOTAAssigner must be at least 0, got -1'),
        ({'iou_weight': -2.0}, 'iou_weight of SimOTAAssigner must be at least 0, got -2.0'),
        (
            {'iou_calculator': {'type': 'mmdet.BboxOverlaps2D', 'dtype': 'fp16'}},
            'SimOTAAssigner computes plain IoU itself, iou_calculator cannot be BboxOverlaps2D',
        ),
    ],
)
def test_bad_settings_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        SimOTAAssigner(**arguments)


def test_what_is_missing_is_named():
    arguments = batch_of([predicted_scene(0)])
    with pytest.raises(AssignmentError, match='SimOTAAssigner ranks priors by predicted scores and boxes'):
        SimOTAAssigner().assign_batch(**{**arguments, 'predictions': None})
    with pytest.raises(AssignmentError, match='SimOTAAssigner measures distances in strides'):
        SimOTAAssigner().assign_batch(**{**arguments, 'priors': replace(arguments['priors'], strides=None)})
