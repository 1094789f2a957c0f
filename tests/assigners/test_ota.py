"""OTAAssigner against a literal dense Sinkhorn in NumPy; the plan's marginals; literal cases."""

import math

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from scenes import literal_candidates, literal_iou, random_scene

from atss_ext.assigners import OTAAssigner, PackedGts, Predictions, PyramidPriors
from atss_ext.assigners.base import AssignmentError
from atss_ext.assigners.sinkhorn import Problem, solve

FLOAT32_EPS = 2.0**-23


def log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    most = values.max(axis, keepdims=True)
    return np.log(np.exp(values - most).sum(axis)) + most.squeeze(axis)


def dense_sinkhorn(supply, demand, costs, eps: float, iterations: int) -> np.ndarray:
    """The plan [suppliers, demanders] of a full matrix of costs, in the logarithm."""
    u, v = np.zeros(len(supply)), np.zeros(len(demand))
    for _ in range(iterations):
        v = eps * (np.log(demand) - log_sum((u[:, None] - costs) / eps, 0))
        u = eps * (np.log(supply) - log_sum((v[None] - costs) / eps, 1))
    return np.exp((u[:, None] + v[None] - costs) / eps)


def focal(logits: np.ndarray, targets: np.ndarray, alpha: float = 0.25, gamma: float = 2.0) -> np.ndarray:
    p = 1 / (1 + np.exp(-logits))
    loss = -targets * alpha * (1 - p) ** gamma * np.log(p)
    return loss - (1 - targets) * (1 - alpha) * p**gamma * np.log(1 - p)


def literal_ota(scene, logits, boxes, side: int = 5, q: int = 20, reg_weight: float = 1.5) -> list[int]:
    """The paper's steps with the official code's constants on all pairs: gt + 1 or 0 of every prior."""
    priors, gts = scene.priors.double().numpy(), scene.boxes.double().numpy()
    logits, boxes = logits.double().numpy(), boxes.double().numpy()
    num_gts, num_priors = len(gts), len(priors)
    ious = np.array([[literal_iou(box, gt) for box in boxes] for gt in gts])
    x, y = (priors[:, 0] + priors[:, 2]) / 2, (priors[:, 1] + priors[:, 3]) / 2
    inside = np.stack([x - gts[:, :1], gts[:, 2:3] - x, y - gts[:, 1:2], gts[:, 3:] - y]).min(0) > 0.01
    near = np.zeros((num_gts, num_priors), dtype=bool)
    for gt in range(num_gts):
        near[gt, literal_candidates(scene, gt, side * side, set())] = True
    costs = np.zeros((num_gts + 1, num_priors))
    for gt, label in enumerate(scene.labels.tolist()):
        one_hot = np.eye(logits.shape[1])[[label]]
        costs[gt] = focal(logits, one_hot).sum(1) - reg_weight * np.log(np.maximum(ious[gt], FLOAT32_EPS))
    costs[-1] = focal(logits, np.zeros_like(logits)).sum(1)
    costs[:-1] += 1e6 * ~inside + 1e9 * ~near
    supply = np.ones(num_gts + 1)
    for gt in range(num_gts):
        best = np.sort(ious[gt] * (inside & near)[gt])[::-1][:q]
        supply[gt] = max(1, math.floor(best.sum()))
    supply[-1] = max(1, num_priors - supply[:-1].sum())
    plan = dense_sinkhorn(supply, np.ones(num_priors), costs, 0.1, 50)
    shares = plan / plan.max(1, keepdims=True)
    choice = shares.argmax(0)
    return np.where(choice == num_gts, 0, choice + 1).tolist()


def predicted(scene, seed: int, classes: int = 6):
    """Logits of a few classes, and boxes that half of the priors got somewhat right."""
    generator = torch.Generator().manual_seed(seed)
    count = len(scene.priors)
    logits = torch.randn(count, classes, generator=generator) * 2 - 2
    boxes = scene.priors + torch.randn(count, 4, generator=generator) * 4
    if len(scene.boxes):
        own = torch.randint(0, len(scene.boxes), (count,), generator=generator)
        close = torch.rand(count, generator=generator) < 0.5
        boxes[close] = scene.boxes[own[close]] + torch.randn(int(close.sum()), 4, generator=generator) * 3
    return logits, boxes


@pytest.mark.parametrize('seed', range(24))
def test_equals_the_literal_algorithm(seed):
    kind = ('mixed', 'tiny', 'crowded', 'outside')[seed % 4]
    scene = random_scene(seed, kind, (1, 3, 8, 15)[seed // 4 % 4], 64 + 8 * (seed % 5), 96, levels=3)
    scene.labels = scene.labels % 6
    logits, boxes = predicted(scene, seed)
    given = InstanceData(priors=scene.priors, scores=logits, bboxes=boxes)
    result = OTAAssigner().assign(given, scene.sizes, scene.gts)
    assert result.gt_inds.tolist() == literal_ota(scene, logits, boxes)
    assert (result.gt_inds > 0).any()


def random_problem(seed: int, spread: float = 40.0) -> tuple[Problem, np.ndarray, np.ndarray]:
    """Two images, 4 and 3 gts, 30 priors each of which a few are columns; and the dense costs of both."""
    generator = torch.Generator().manual_seed(seed)
    costs = torch.rand(7, 6, generator=generator).double() * spread
    priors = torch.stack([torch.randperm(12, generator=generator)[:6] for _ in range(7)])
    images = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    slots = priors + 30 * images[:, None]
    costs[1, 4:] = torch.inf
    used = slots[costs.isfinite()].unique()
    columns = torch.searchsorted(used, slots).masked_fill(costs.isinf(), len(used))
    supply = torch.tensor([2.0, 1, 3, 1, 1, 2, 4]).double()
    of_image = torch.zeros(2).double().index_add(0, images, supply)
    column_images = used // 30
    problem = Problem(
        costs, columns, supply, column_images, 30 - of_image, 30 - column_images.bincount().double()
    )
    dense = np.full((7, 60), np.inf)
    for gt in range(7):
        for k in range(6):
            dense[gt, slots[gt, k]] = costs[gt, k]
    return problem, dense, used.numpy()


@pytest.mark.parametrize('seed', range(5))
def test_the_sparse_plan_is_the_dense_one(seed):
    problem, dense, used = random_problem(seed)
    plan = solve(problem, 50)
    for image, gts in ((0, slice(0, 4)), (1, slice(4, 7))):
        own = slice(30 * image, 30 * image + 30)
        costs = np.concatenate([dense[gts, own], np.zeros((1, 30))])
        costs[np.isinf(costs)] = 1e7
        supply = np.append(problem.supply[gts].numpy(), problem.background_supply[image].item())
        expected = dense_sinkhorn(supply, np.ones(30), costs, 1.0, 50)
        found = np.zeros((5 if image == 0 else 4, 30))
        for row, gt in enumerate(range(gts.start, gts.stop)):
            for k in range(6):
                if problem.columns[gt, k] < len(used):
                    found[row, used[problem.columns[gt, k]] - own.start] = plan.gts[gt, k].exp()
        found[-1] = plan.others[image].exp()
        mine = (used >= own.start) & (used < own.stop)
        found[-1, used[mine] - own.start] = plan.background[torch.from_numpy(mine)].exp()
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_marginals_hold():
    """Suppliers give what they have at every iteration; demanders get what they want in the end."""
    problem, _, used = random_problem(0, spread=4.0)
    for iterations, tolerance in ((1, None), (1000, 1e-9)):
        plan = solve(problem, iterations)
        torch.testing.assert_close(plan.gts.exp().sum(1), problem.supply)
        background = plan.others.exp() * problem.others
        background.index_add_(0, problem.column_images, plan.background.exp())
        torch.testing.assert_close(background, problem.background_supply)
        demand = plan.background.exp()
        padded = torch.cat([demand, demand.new_zeros(1)])
        demand = padded.index_add(0, problem.columns.view(-1), plan.gts.exp().view(-1))[:-1]
        everyone = torch.cat([demand, plan.others.exp()])
        if tolerance is not None:
            assert (everyone - 1).abs().max() < tolerance
    assert len(used) > 15


def test_more_supply_than_priors_stays_finite():
    """Forty gts on top of each other in an image of a few priors."""
    scene = random_scene(0, 'mixed', 1, 24, 24, levels=2)
    boxes = torch.tensor([[0.0, 0, 24, 24]]).repeat(40, 1)
    gts = InstanceData(bboxes=boxes, labels=torch.zeros(40, dtype=torch.long))
    given = InstanceData(
        priors=scene.priors, scores=torch.zeros(len(scene.priors), 2), bboxes=boxes[: len(scene.priors)]
    )
    result = OTAAssigner().assign(given, scene.sizes, gts)
    # All gts are alike, so every prior whose centre lies inside falls to the first of them.
    centers = (scene.priors[:, :2] + scene.priors[:, 2:]) / 2
    assert result.gt_inds.tolist() == (centers > 0).all(1).long().tolist()
    assert 0 < int(result.gt_inds.sum()) < len(scene.priors) < 40


def test_a_good_prediction_decides():
    # Two priors alike; one predicts the gt, the other nothing of it. Dynamic k is 1.
    priors = torch.tensor([[0.0, 0, 16, 16], [0.0, 0, 16, 16], [64.0, 64, 80, 80]])
    boxes = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 16, 15], [64.0, 64, 80, 80]])
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 16, 16]]), labels=torch.tensor([1]))
    given = InstanceData(priors=priors, scores=torch.zeros(3, 2), bboxes=boxes)
    batch = OTAAssigner(center_area=2).assign_batch(
        PyramidPriors(priors, [3]),
        PackedGts.from_instances([gts]),
        predictions=Predictions(given.scores[None], given.bboxes[None]),
    )
    assert batch.assigned.tolist() == [[0, 1, 0]]
    torch.testing.assert_close(batch.ious, torch.tensor([[0.0, 0.9375, 0.0]]))
    torch.testing.assert_close(batch.metrics, torch.tensor([[0.0, 1.0, 0.0]]))


@pytest.mark.parametrize('damaged', ['scores', 'bboxes'])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_a_candidate_that_is_no_number_does_not_count(damaged, value):
    """The others are assigned as if it were in the padding."""
    scene = random_scene(0, 'mixed', 6, 64, 96, levels=3)
    generator = torch.Generator().manual_seed(0)
    found = {
        'scores': torch.randn(1, len(scene.priors), 80, generator=generator),
        'bboxes': scene.priors[None] + torch.randn(1, len(scene.priors), 4, generator=generator) * 4,
    }
    priors, gts = PyramidPriors(scene.priors, scene.sizes), PackedGts.from_instances([scene.gts])
    # Of all priors, so that no other one moves up among the nearest.
    assigner = OTAAssigner(center_area=len(scene.priors))
    before = assigner.assign_batch(priors, gts, predictions=Predictions(found['scores'], found['bboxes']))
    prior = int((before.assigned[0] > 0).nonzero()[2])
    found[damaged][0, prior] = value
    result = assigner.assign_batch(priors, gts, predictions=Predictions(found['scores'], found['bboxes']))
    valid = torch.ones(1, len(scene.priors), dtype=torch.bool)
    valid[0, prior] = False
    expected = assigner.assign_batch(
        priors, gts, valid, Predictions(found['scores'].nan_to_num(), found['bboxes'].nan_to_num())
    )
    assert result.assigned[0, prior] == 0
    assert (result.assigned > 0).sum() > 5
    assert torch.equal(result.assigned[valid], expected.assigned[valid])


def test_what_it_lacks_is_said():
    scene = random_scene(1, 'mixed', 3, 96, 128)
    with pytest.raises(AssignmentError, match='OTAAssigner ranks priors by predicted scores and boxes'):
        OTAAssigner().assign(scene.predictions, scene.sizes, scene.gts)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'center_area': 0}, 'center_area must be at least 1, got 0'),
        ({'top_ious': 0}, 'top_ious must be at least 1, got 0'),
        ({'iterations': 0}, 'iterations must be at least 1, got 0'),
        ({'eps': 0}, 'eps must be positive, got 0'),
        ({'reg_weight': -1}, 'reg_weight must not be negative, got -1'),
    ],
)
def test_bad_settings_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        OTAAssigner(**arguments)
