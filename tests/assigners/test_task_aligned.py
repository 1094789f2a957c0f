"""TaskAlignedAssigner against mmdet's class, alone and in heads."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import TaskAlignedAssigner as MMDetTaskAlignedAssigner
from mmengine.structures import InstanceData
from predicted_heads import assert_same_losses, assert_same_losses_in_our_head
from predicted_scenes import aligned_in_doubt, batch_of, different, predicted_scene
from scenes import KINDS

from atss_ext.assigners import PackedGts, TaskAlignedAssigner
from atss_ext.assigners.base import AssignmentError
from atss_ext.assigners.calls import assign_batch
from atss_ext.ops import native
from atss_ext.registry import TASK_UTILS


def both(scene, topk=13, alpha=1, beta=6):
    arguments = scene.instances(points=False, logits=False), scene.gts, None, alpha, beta
    return TaskAlignedAssigner(topk).assign(*arguments), MMDetTaskAlignedAssigner(topk).assign(*arguments)


def assert_near_metrics(ours, theirs, same) -> None:
    torch.testing.assert_close(ours.assign_metrics[same], theirs.assign_metrics[same], rtol=2e-6, atol=1e-37)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(KINDS),
    count=st.integers(0, 30),
    size=st.tuples(st.integers(8, 240), st.integers(8, 240)),
    levels=st.integers(1, 5),
    topk=st.integers(1, 14),
    exponents=st.sampled_from([(1, 6), (0.5, 4), (2, 1), (0, 3)]),
)
def test_equals_mmdet(seed, kind, count, size, levels, topk, exponents):
    scene = predicted_scene(seed, kind, count, *size, levels)
    ours, theirs = both(scene, topk, *exponents)
    other = different(ours, theirs)
    doubt = aligned_in_doubt(scene, topk, *exponents)
    assert not (other & ~doubt).any()
    assert_near_metrics(ours, theirs, ~other)


def test_most_scenes_need_no_excuse():
    positives = 0
    for seed in range(80):
        ours, theirs = both(predicted_scene(seed, 'mixed', 1 + seed % 30))
        assert not different(ours, theirs).any()
        assert_near_metrics(ours, theirs, slice(None))
        positives += int((ours.gt_inds > 0).sum())
    assert positives > 700


def test_literal_values(monkeypatch):
    """Metrics by hand, natively and in PyTorch: scores 0.5, 1 and 0.8 of class 1, IoUs 1, 0.5 and 1/3."""
    priors = torch.tensor([[0.0, 0, 8, 8], [2, 0, 10, 8], [40, 40, 48, 48]])
    predictions = InstanceData(
        priors=priors,
        scores=torch.tensor([[0.9, 0.5], [0.0, 1.0], [0.7, 0.8]]),
        bboxes=torch.tensor([[0.0, 0, 16, 16], [0, 0, 16, 8], [8, 0, 24, 16]]),
    )
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 16, 16]]), labels=torch.tensor([1]))
    for devices in (native.DEVICES, frozenset()):
        monkeypatch.setattr(native, 'DEVICES', devices)
        result = TaskAlignedAssigner(13).assign(predictions, gts, alpha=1, beta=2)
        # The last centre is outside.
        assert result.gt_inds.tolist() == [1, 1, 0]
        assert result.labels.tolist() == [1, 1, -1]
        assert result.max_overlaps.tolist() == [1.0, 0.5, -1e8]
        assert result.assign_metrics.tolist() == pytest.approx([0.5, 0.25, 0])
        best = TaskAlignedAssigner(1).assign(predictions, gts, alpha=1, beta=2)
        assert best.gt_inds.tolist() == [1, 0, 0]


def test_ties():
    """Equal metrics: the lower prior; equal IoUs: the lower gt."""
    priors = torch.tensor([[4.0, 4, 12, 12]]).repeat(3, 1)
    predictions = InstanceData(
        priors=priors, scores=torch.full((3, 1), 0.5), bboxes=torch.tensor([[0.0, 0, 16, 16]]).repeat(3, 1)
    )
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 16, 16]] * 2), labels=torch.tensor([0, 0]))
    assert TaskAlignedAssigner(2).assign(predictions, gts).gt_inds.tolist() == [1, 1, 0]


@pytest.mark.parametrize('logits', [True, False])
def test_a_batch_is_its_images(logits):
    scenes = [predicted_scene(seed, count=count) for seed, count in enumerate((9, 0, 23))]
    valid = torch.rand(3, len(scenes[0].priors), generator=torch.Generator().manual_seed(0)) < 0.8
    arguments = batch_of(scenes, logits)
    ours = TaskAlignedAssigner(13).assign_batch(**arguments, valid=valid)
    theirs = assign_batch(MMDetTaskAlignedAssigner(13), **arguments, valid=valid)
    assert torch.equal(ours.assigned, theirs.assigned)
    assert torch.equal(ours.ious, theirs.ious)
    assert (ours.assigned[~valid] == -1).all()
    assert ((ours.metrics > 0) == (ours.assigned > 0)).all()
    for image, scene in enumerate(scenes):
        alone = TaskAlignedAssigner(13).assign_batch(
            **batch_of([scene], logits), valid=valid[image : image + 1]
        )
        for one, all_images in zip(
            (alone.assigned, alone.ious, alone.metrics), (ours.assigned, ours.ious, ours.metrics), strict=True
        ):
            assert torch.equal(one[0], all_images[image])


def test_without_gts_or_priors():
    scene = predicted_scene(0, count=0)
    ours, theirs = both(scene)
    for name in ('gt_inds', 'labels', 'max_overlaps', 'assign_metrics'):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    nothing = predicted_scene(0, count=2)
    instances = nothing.instances(points=False, logits=False)[:0]
    assert TaskAlignedAssigner(13).assign(instances, nothing.gts).gt_inds.tolist() == []


def test_losses_of_toods_head_equal_mmdets():
    assert_same_losses('TaskAlignedAssigner', {'topk': 13})


def test_losses_of_our_head_equal_those_with_mmdets_class():
    assert_same_losses_in_our_head('TaskAlignedAssigner', {'topk': 13})


def test_builds_from_config():
    built = TASK_UTILS.build({'type': 'atss_ext.TaskAlignedAssigner', 'topk': 5, 'beta': 4})
    assert (built.topk, built.alpha, built.beta, built.needs_predictions) == (5, 1, 4, True)
    TASK_UTILS.build(
        {'type': 'atss_ext.TaskAlignedAssigner', 'iou_calculator': {'type': 'mmdet.BboxOverlaps2D'}}
    )


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'topk': 0}, 'topk of TaskAlignedAssigner must be at least 1, got 0'),
        ({'alpha': -1}, 'alpha of TaskAlignedAssigner must be at least 0, got -1'),
        ({'beta': 0}, 'beta of TaskAlignedAssigner must be above 0, got 0: the paper uses 6'),
        (
            {'iou_calculator': {'type': 'mmdet.BboxOverlaps2D', 'dtype': 'fp16'}},
            'TaskAlignedAssigner computes plain IoU itself, iou_calculator cannot be BboxOverlaps2D',
        ),
    ],
)
def test_bad_settings_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        TaskAlignedAssigner(**arguments)


def test_what_cannot_be_used_is_named():
    scene = predicted_scene(0)
    arguments = batch_of([scene])
    with pytest.raises(AssignmentError, match='TaskAlignedAssigner ranks priors by predicted scores and box'):
        TaskAlignedAssigner().assign_batch(**{**arguments, 'predictions': None})
    beyond = replace(scene, labels=scene.labels + 9)
    with pytest.raises(ValueError, match='gt_labels must lie in 0 to 8, the classes that have scores, got'):
        TaskAlignedAssigner().assign_batch(**{**arguments, 'gts': PackedGts.from_instances([beyond.gts])})
