"""DynamicSoftLabelAssigner against mmdet's class, alone and in heads."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import DynamicSoftLabelAssigner as MMDetDynamicSoftLabelAssigner
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from predicted_heads import assert_same_losses, assert_same_losses_in_our_head
from predicted_scenes import batch_of, cost_in_doubt, different, predicted_scene, soft_label_cost
from scenes import KINDS

from atss_ext.assigners import DynamicSoftLabelAssigner, Predictions
from atss_ext.assigners.base import AssignmentError
from atss_ext.assigners.calls import assign_batch
from atss_ext.ops import native
from atss_ext.registry import TASK_UTILS


def both(scene, gts=None, **settings):
    arguments = scene.instances(points=True, logits=True), gts or scene.gts
    ours = DynamicSoftLabelAssigner(**settings).assign(*arguments)
    return ours, MMDetDynamicSoftLabelAssigner(**settings).assign(*arguments)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(KINDS),
    count=st.integers(0, 30),
    size=st.tuples(st.integers(8, 200), st.integers(8, 200)),
    levels=st.integers(1, 5),
    topk=st.integers(1, 14),
)
def test_equals_mmdet(seed, kind, count, size, levels, topk):
    scene = predicted_scene(seed, kind, count, *size, levels)
    ours, theirs = both(scene, topk=topk)
    doubt = cost_in_doubt(*soft_label_cost(scene), topk)
    assert not (different(ours, theirs) & ~doubt).any()


def test_most_scenes_need_no_excuse():
    same = positives = 0
    for seed in range(80):
        ours, theirs = both(predicted_scene(seed, 'mixed', 1 + seed % 30))
        same += not different(ours, theirs).any()
        positives += int((ours.gt_inds > 0).sum())
    assert same >= 78
    assert positives > 2000


@pytest.mark.parametrize('change', [{'iou_weight': 0.0}, {'soft_center_radius': 0.5}, {'topk': 300}])
def test_settings_equal_mmdet(change):
    for seed in range(10):
        ours, theirs = both(predicted_scene(seed, 'mixed', 8, 120, 120), **change)
        assert not different(ours, theirs).any()


def test_literal_values(monkeypatch):
    """One candidate is nearer, the other has the better box: which one wins depends on the radius."""
    predictions = InstanceData(
        priors=torch.tensor([[8.0, 8, 4, 4], [16, 8, 4, 4], [40, 40, 4, 4]]),
        scores=torch.zeros(3, 2),
        bboxes=torch.tensor([[0.0, 0, 16, 8], [0, 0, 24, 16], [0, 0, 24, 16]]),
    )
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 24, 16]]), labels=torch.tensor([1]))
    for devices in (native.DEVICES, frozenset()):
        monkeypatch.setattr(native, 'DEVICES', devices)
        # Distances are 1 stride each way; the IoUs 1/3 and 1 decide: k is 1.
        result = DynamicSoftLabelAssigner().assign(predictions, gts)
        assert result.gt_inds.tolist() == [0, 1, 0]
        assert result.labels.tolist() == [-1, 1, -1]
        assert result.max_overlaps.tolist() == [-1e8, 1.0, -1e8]
        # The centre of a mask at the left edge: 2 strides against 4, which cost 10^(2-r) and 10^(4-r).
        gts_with_mask = gts.clone()
        gts_with_mask.masks = torch.zeros(1, 17, 17)
        gts_with_mask.masks[0, 8, 0] = 1
        result = DynamicSoftLabelAssigner().assign(predictions, gts_with_mask)
        assert result.gt_inds.tolist() == [1, 0, 0]


def test_masks_equal_mmdet():
    generator = torch.Generator().manual_seed(0)
    for seed in range(10):
        scene = predicted_scene(seed, 'mixed', 8, 120, 120)
        masks = (torch.rand(8, 120, 120, generator=generator) < 0.01).float()
        masks[0] = 0
        gts = scene.gts
        gts.masks = masks
        ours, theirs = both(scene, gts)
        assert not different(ours, theirs).any()


def test_boxes_of_mmdets_own_type():
    scene = predicted_scene(3, 'mixed', 8)
    gts = InstanceData(bboxes=HorizontalBoxes(scene.boxes), labels=scene.labels)
    ours = DynamicSoftLabelAssigner().assign(scene.instances(points=True, logits=True), gts)
    assert torch.equal(ours.gt_inds, both(scene)[1].gt_inds)


def test_a_batch_is_its_images():
    scenes = [predicted_scene(seed, count=count) for seed, count in enumerate((9, 0, 23))]
    valid = torch.rand(3, len(scenes[0].priors), generator=torch.Generator().manual_seed(0)) < 0.8
    arguments = batch_of(scenes)
    ours = DynamicSoftLabelAssigner().assign_batch(**arguments, valid=valid)
    theirs = assign_batch(MMDetDynamicSoftLabelAssigner(), **arguments, valid=valid)
    assert torch.equal(ours.assigned, theirs.assigned)
    assert torch.equal(ours.ious, theirs.ious)
    assert (ours.assigned[~valid] == -1).all()
    for image, scene in enumerate(scenes):
        own = valid[image : image + 1]
        alone = DynamicSoftLabelAssigner().assign_batch(**batch_of([scene]), valid=own)
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


def test_losses_of_rtmdets_head_equal_mmdets():
    assert_same_losses('DynamicSoftLabelAssigner', {'topk': 13})


def test_losses_of_our_head_equal_those_with_mmdets_class():
    assert_same_losses_in_our_head('DynamicSoftLabelAssigner', {'topk': 13})


def test_builds_from_config():
    built = TASK_UTILS.build({'type': 'atss_ext.DynamicSoftLabelAssigner', 'topk': 5})
    assert (built.topk, built.soft_center_radius, built.needs_predictions) == (5, 3.0, True)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'topk': 0}, 'topk of DynamicSoftLabelAssigner must be at least 1, got 0'),
        (
            {'soft_center_radius': -1},
            'soft_center_radius of DynamicSoftLabelAssigner must be at least 0, got',
        ),
        (
            {'iou_calculator': {'type': 'mmdet.BboxOverlaps2D', 'dtype': 'fp16'}},
            'DynamicSoftLabelAssigner computes plain IoU itself, iou_calculator cannot be BboxOverlaps2D',
        ),
    ],
)
def test_bad_settings_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        DynamicSoftLabelAssigner(**arguments)


def test_what_cannot_be_used_is_named():
    scene = predicted_scene(0)
    arguments = batch_of([scene])
    assigner = DynamicSoftLabelAssigner()
    with pytest.raises(AssignmentError, match='DynamicSoftLabelAssigner ranks priors by predicted scores'):
        assigner.assign_batch(**{**arguments, 'predictions': None})
    with pytest.raises(AssignmentError, match='DynamicSoftLabelAssigner measures distances in strides'):
        assigner.assign_batch(**{**arguments, 'priors': replace(arguments['priors'], strides=None)})
    found = arguments['predictions']
    probabilities = Predictions(found.scores.sigmoid(), found.boxes, are_logits=False)
    with pytest.raises(AssignmentError, match='needs logits as scores, not probabilities: pass what the'):
        assigner.assign_batch(**{**arguments, 'predictions': probabilities})
    gts = scene.gts
    gts.masks = [None] * len(gts)
    with pytest.raises(AssignmentError, match=r'takes gt masks as a tensor \[M, H, W\], got list: convert'):
        assigner.assign(scene.instances(points=True, logits=True), gts)
