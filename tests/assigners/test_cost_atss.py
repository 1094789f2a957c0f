"""CostATSSAssigner against mmdet's ATSSAssigner with alpha."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import ATSSAssigner as MMDetATSSAssigner
from mmengine.structures import InstanceData
from scenes import KINDS, kth_place_ties, literal_candidates, literal_ignored, literal_iou, random_scene

from atss_ext.assigners import ATSSAssigner, CostATSSAssigner, PackedGts, Predictions, PyramidPriors
from atss_ext.assigners.base import AssignmentError


def predicted(scene, seed: int, dtype=torch.float32) -> InstanceData:
    """Logits of 80 classes and boxes near the priors."""
    generator = torch.Generator().manual_seed(seed)
    count = len(scene.priors)
    boxes = scene.priors + torch.randn(count, 4, generator=generator) * 3
    logits = torch.randn(count, 80, generator=generator)
    return InstanceData(priors=scene.priors, scores=logits.to(dtype), bboxes=boxes.to(dtype))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(KINDS),
    count=st.integers(0, 40),
    sides=st.tuples(st.integers(1, 260), st.integers(1, 260)),
    k=st.integers(1, 12),
    alpha=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    ignore_iof_thr=st.sampled_from([-1, 0.3]),
)
def test_equals_mmdet(seed, kind, count, sides, k, alpha, ignore_iof_thr):
    scene = random_scene(seed, kind, count, *sides, num_ignored=seed % 3)
    if kth_place_ties(scene, k, literal_ignored(scene, ignore_iof_thr)).any():
        scene.boxes = scene.boxes + torch.linspace(0.1, 0.4, count)[:, None]  # off the grid
    arguments = predicted(scene, seed), scene.sizes, scene.gts, scene.ignored_instances
    theirs = MMDetATSSAssigner(topk=k, alpha=alpha, ignore_iof_thr=ignore_iof_thr).assign(*arguments)
    ours = CostATSSAssigner(k, alpha, ignore_iof_thr=ignore_iof_thr).assign(*arguments)
    different = ours.gt_inds != theirs.gt_inds
    claimants = {int(r.gt_inds[i]) - 1 for r in (ours, theirs) for i in different.nonzero()[:, 0]} - {-1, -2}
    ignored = literal_ignored(scene, ignore_iof_thr)
    excused = kth_place_ties(scene, k, ignored) | threshold_in_rounding(
        scene, arguments[0], k, alpha, ignored
    )
    assert all(excused[gt] for gt in claimants)
    assert different.sum() <= 2 * k * len(scene.sizes) * int(excused.sum())
    same = ~different & (ours.gt_inds > 0)
    torch.testing.assert_close(ours.max_overlaps[same], theirs.max_overlaps[same], rtol=1e-5, atol=1e-7)


def threshold_in_rounding(scene, predictions, k, alpha, ignored) -> torch.Tensor:
    """[M] bool: gts with a candidate whose value is the threshold up to float32's rounding."""
    close = []
    for gt, box in enumerate(scene.boxes.double().tolist()):
        found = literal_candidates(scene, gt, k, ignored)
        ious = [literal_iou(predictions.bboxes[i].double().tolist(), box) for i in found]
        scores = predictions.scores[found, scene.labels[gt]].double().sigmoid()
        values = scores ** (1 - alpha) * torch.tensor(ious).double() ** alpha
        threshold = values.mean() + (values.std() if len(values) > 1 else 0.0)
        close.append(len(found) == 1 or bool(((values - threshold).abs() <= 2e-6).any()))
    return torch.tensor(close, dtype=torch.bool)


def test_most_scenes_need_no_excuse():
    positives = 0
    for seed in range(40):
        scene = random_scene(seed, 'mixed', 1 + seed % 30, 250, 330)
        arguments = predicted(scene, seed), scene.sizes, scene.gts
        theirs = MMDetATSSAssigner(topk=9, alpha=0.8).assign(*arguments)
        ours = CostATSSAssigner().assign(*arguments)
        assert torch.equal(ours.gt_inds, theirs.gt_inds)
        assert torch.equal(ours.labels, theirs.labels)
        positives += int((ours.gt_inds > 0).sum())
    assert positives > 500


def test_predictions_matter():
    scene = random_scene(1, 'mixed', 20, 250, 330)
    plain = ATSSAssigner().assign(scene.predictions, scene.sizes, scene.gts)
    assert not torch.equal(
        CostATSSAssigner().assign(predicted(scene, 1), scene.sizes, scene.gts).gt_inds, plain.gt_inds
    )


def test_probabilities_serve_as_well():
    scene = random_scene(2, 'mixed', 20, 250, 330)
    found = predicted(scene, 2)
    gts = PackedGts.from_instances([scene.gts])
    logits = Predictions(found.scores[None], found.bboxes[None])
    probabilities = Predictions(found.scores[None].sigmoid(), found.bboxes[None], are_logits=False)
    results = [
        CostATSSAssigner().assign_batch(PyramidPriors(scene.priors, scene.sizes), gts, predictions=p)
        for p in (logits, probabilities)
    ]
    assert torch.equal(results[0].assigned, results[1].assigned)
    positive = results[0].assigned[0] > 0
    own = scene.boxes[results[0].assigned[0][positive] - 1]
    for iou, box, gt in zip(results[0].ious[0][positive], found.bboxes[positive], own, strict=True):
        assert iou.item() == pytest.approx(literal_iou(box.double().tolist(), gt.double().tolist()), abs=1e-6)
    assert (results[0].metrics[0][positive] != results[0].ious[0][positive]).all()


@pytest.mark.parametrize('damaged', ['scores', 'bboxes'])
def test_a_candidate_that_is_no_number_does_not_count(damaged):
    """Threshold: mean plus deviation of the others, here 0.4 + 0.34641 of IoUs 0.8, 0.2 and 0.2."""
    priors = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [2.0, 0, 12, 10], [3.0, 0, 13, 10]])
    predicted = torch.tensor([[0.0, 0, 10, 8], [0.0, 0, 10, 2], [0.0, 0, 10, 10], [0.0, 0, 10, 2]])
    given = InstanceData(priors=priors, scores=torch.zeros(4, 2), bboxes=predicted)
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([1]))
    assigner = CostATSSAssigner(alpha=0.999)
    whole = assigner.assign(given, [4], gts)
    assert whole.gt_inds.tolist() == [0, 0, 1, 0]  # 0.55 + 0.4123
    given[damaged][2] = float('nan')
    result = assigner.assign(given, [4], gts)
    assert result.gt_inds.tolist() == [1, 0, 0, 0]
    assert result.max_overlaps[0].item() == pytest.approx(0.8, abs=1e-3)


def test_what_it_lacks_is_said():
    scene = random_scene(1, 'mixed', 3, 96, 128)
    with pytest.raises(AssignmentError, match='CostATSSAssigner ranks priors by predicted scores and boxes'):
        CostATSSAssigner().assign(scene.predictions, scene.sizes, scene.gts)
    found = predicted(scene, 1)
    found.scores = found.scores[:, : int(scene.labels.max())]
    with pytest.raises(AssignmentError, match=f'has label {int(scene.labels.max())}, but the head has'):
        CostATSSAssigner().assign(found, scene.sizes, scene.gts)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'topk': 0}, 'topk must be at least 1, got 0'),
        ({'alpha': 1.5}, 'alpha must lie in 0 to 1, got 1.5'),
        ({'candidates': 'all'}, "got 'all'"),
    ],
)
def test_bad_settings_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        CostATSSAssigner(**arguments)
