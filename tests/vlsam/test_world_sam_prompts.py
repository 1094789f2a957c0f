"""The prompts and losses that the small SAM is trained with, by hand."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'vlsam_world'))

import sam_batches
import sam_losses
import sam_prompts
import scene_views


@pytest.fixture(scope='module')
def two_squares():
    """A large one on the left, on 3 x 3 cells' centres, and a small one in the corner, on a single one."""
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 8:32, 8:32] = True
    masks[1, 56:64, 56:64] = True
    return masks


def view_with(masks):
    owners = (masks * np.arange(1, len(masks) + 1)[:, None, None]).sum(axis=0).astype(np.uint8)
    categories = np.ones(len(masks), np.uint8)
    return scene_views.whole_view(np.zeros((64, 64, 3), np.uint8), owners, categories)


def cells_of(points):
    return {(int(x // 8), int(y // 8)) for x, y in points}


def test_cells_have_their_centres_row_by_row():
    centres = sam_prompts.grid_centres(32, 64)
    assert centres[:2].tolist() == [[4, 2], [12, 2]]
    assert centres[8].tolist() == [4, 6]
    assert centres[-1].tolist() == [60, 30]


def test_distances_by_hand(two_squares):
    points = np.array([[8, 8], [4, 12], [4, 4], [36, 20], [60, 60]], np.float32)
    found = sam_prompts.distances(two_squares, points)
    # The square's nearest pixels have their centres at 8.5 and 31.5.
    assert found[0].tolist() == pytest.approx(
        [0, math.hypot(4.5, 0.5), math.hypot(4.5, 4.5), 4.527693, 40.305087]
    )
    assert found[1, 4] == 0


def test_positive_points_lie_on_the_object_or_close_beside_it(two_squares):
    # One pixel wider on the left and above: the cells around it begin half a pixel less than 4 pixels away.
    masks = two_squares.copy()
    masks[0, 7:32, 7:32] = True
    far = sam_prompts.distances(masks, sam_prompts.grid_centres(64, 64))
    rng = np.random.default_rng(0)
    points = np.array([sam_prompts.draw_positive(0, masks, far, rng) for _ in range(2000)])
    on = masks[0][points[:, 1].astype(int), points[:, 0].astype(int)]
    assert 0.19 < (~on).mean() < 0.25
    assert cells_of(points[~on]) == {(0, row) for row in (1, 2, 3)} | {(column, 0) for column in (1, 2, 3)}
    assert np.all(points[~on] % 8 == 4)
    centres = (points[on] % 8 == 4).all(axis=1)
    assert 0.70 < centres.mean() < 0.80
    assert cells_of(points[on][centres]) == {(x, y) for x in (1, 2, 3) for y in (1, 2, 3)}


@pytest.mark.parametrize(('number', 'between'), [(0, False), (1, True)])
def test_a_point_beside_two_objects_means_the_nearer_one(number, between):
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 24:40, 8:25] = True  # ends 3.5 pixels before the cells' centres at x = 28 ...
    masks[1, 24:40, 30:46] = True  # ... and this one begins 2.5 pixels after them
    far = sam_prompts.distances(masks, sam_prompts.grid_centres(64, 64))
    rng = np.random.default_rng(0)
    points = [sam_prompts.draw_positive(number, masks, far, rng).tolist() for _ in range(300)]
    assert ([28, 28] in points, [28, 36] in points) == (between, between)


def test_an_object_between_all_centres_has_a_pixel_of_its_own():
    mask = np.zeros((64, 64), bool)
    mask[6:11, 6:11] = True  # the centres around it are 4 and 12
    far = sam_prompts.distances(mask[None], sam_prompts.grid_centres(64, 64))
    for seed in range(20):
        x, y = sam_prompts.draw_positive(0, mask[None], far, np.random.default_rng(seed))
        assert mask[int(y), int(x)] or (x % 8 == 4 and y % 8 == 4)
    assert sam_prompts.central_point(mask, far[0]).tolist() == [8.5, 8.5]


def test_negative_points_lie_beside_the_object_and_often_on_another(two_squares):
    far = sam_prompts.distances(two_squares, sam_prompts.grid_centres(64, 64))
    rng = np.random.default_rng(0)
    cells = np.array([sam_prompts.draw_negative(0, far, rng) for _ in range(2000)])
    own = {8 * row + column for row in (1, 2, 3) for column in (1, 2, 3)}
    assert not own & set(cells.tolist())
    assert set(cells.tolist()) == set(range(64)) - own
    assert 0.27 < (cells == 63).mean() < 0.36  # 0.3, and one in 55 of the rest


def test_where_an_object_fills_all_cells_the_negative_point_is_any():
    assert sam_prompts.draw_negative(0, np.zeros((1, 64), np.float32), np.random.default_rng(0)) == 0


def test_central_points_by_hand(two_squares):
    centres = sam_prompts.grid_centres(64, 64)
    far = sam_prompts.distances(two_squares, centres)
    found = [
        sam_prompts.central_point(mask, row).tolist() for mask, row in zip(two_squares, far, strict=True)
    ]
    assert found == [[20, 20], [60, 60]]


def test_boxes_move_by_a_tenth_of_their_sides_and_stay_in_the_view():
    box = np.array([10, 20, 30, 60], np.float32)
    rng = np.random.default_rng(0)
    drawn = np.array([sam_prompts.jitter_box(box, (64, 64), rng) for _ in range(4000)])
    exact = (drawn == box).all(axis=1)
    assert 0.23 < exact.mean() < 0.27
    spread = (drawn[~exact] - box).std(axis=0)
    assert spread[:3].tolist() == pytest.approx([2, 4, 2], rel=0.05)
    assert drawn.min() >= 0
    assert drawn.max() == 64


def test_the_prompts_of_a_view(two_squares):
    drawn = sam_batches.draw_prompts(view_with(two_squares), np.random.default_rng(0))
    assert drawn['point'].labels.tolist() == [[1], [1]]
    assert drawn['pair'].labels.tolist() == [[1, 0], [1, 0]]
    assert drawn['box'].points is None
    negatives = drawn['pair'].points[:, 1].long()
    assert not any(two_squares[i, y, x] for i, (x, y) in enumerate(negatives.tolist()))


def test_losses_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [-math.log(3), 0.0]])  # probabilities 1/2, 3/4, 1/4, 1/2
    targets = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    # -(1 - p)^2 log p of the right answer, whose p is 1/2, 3/4, 3/4, 1/2.
    expected = (2 * math.log(2) / 4 - 2 * math.log(0.75) / 16) / 4
    assert sam_losses.focal_loss(logits, targets).item() == pytest.approx(expected)
    entropy = (2 * math.log(2) - 2 * math.log(0.75)) / 4
    assert sam_losses.focal_loss(logits, targets, gamma=0).item() == pytest.approx(entropy)
    assert sam_losses.dice_loss(logits, targets).item() == pytest.approx(1 - (2 * 1.25 + 1) / (2 + 2 + 1))


def test_ious_by_hand():
    masks = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])[:, None]
    targets = torch.tensor([[False, True, True], [False, False, False], [True, True, True]])[:, None]
    assert sam_losses.mask_ious(masks, targets).tolist() == pytest.approx([1 / 3, 0, 1])


def test_the_best_proposal_learns_and_all_ious_do():
    targets = torch.tensor([[[True, False]]])
    logits = torch.tensor([[[[4.0, -4.0]], [[4.0, 4.0]], [[-4.0, -4.0]]]], requires_grad=True)
    predicted = torch.tensor([[0.5, 0.5, 0.5]])
    losses = sam_losses.sam_losses(logits, predicted, targets)
    # The proposals' IoUs are 1, 1/2 and 0.
    assert losses.iou.item() == pytest.approx((0.25 + 0 + 0.25) / 3)
    losses.mask.backward()
    assert (logits.grad.abs().sum(dim=(2, 3)) > 0).tolist() == [[True, False, False]]
    share = 1 / (1 + math.exp(-4))
    focal, dice = (1 - share) ** 2 * -math.log(share), 1 - (2 * share + 1) / (1 + 1 + 1)
    assert losses.mask.item() == pytest.approx(20 * focal + dice, rel=1e-4)
