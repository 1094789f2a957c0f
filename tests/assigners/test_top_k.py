"""TopKAssigner: literal cases; its rule at large stands in test_official_rules."""

import pytest
import torch
from mmengine.structures import InstanceData
from scenes import literal_iou, random_scene

from atss_ext.assigners import PackedGts, PyramidPriors, TopKAssigner, rows


def assign(priors, boxes, k, **arguments):
    gts = InstanceData(bboxes=torch.tensor(boxes), labels=torch.arange(len(boxes)))
    assigner = TopKAssigner(topk=k, **arguments)
    return assigner.assign(InstanceData(priors=torch.tensor(priors)), [len(priors)], gts)


SQUARES = [[0.0, 0, 8, 8], [8.0, 0, 16, 8], [0.0, 8, 8, 16], [8.0, 8, 16, 16]]


# A gt, and two priors of half its area: around its centre, and 25 pixels off; and one far away.
BOX, CONCENTRIC, SHIFTED = [0.0, 0, 100, 100], [25.0, 0, 75, 100], [0.0, 0, 50, 100]
FAR = [200.0, 50, 400, 50]


def wider(pixels: float) -> list[float]:
    return [0.0, 0, 50 + pixels, 100]


def test_the_highest_ious_of_all_levels_are_positive():
    priors = torch.tensor([*SQUARES, [0.0, 0, 16, 16], [2.0, 2, 14, 14]])
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 16, 15]]), labels=torch.tensor([3]))
    result = TopKAssigner(topk=2).assign(InstanceData(priors=priors), [4, 2], gts)
    assert result.gt_inds.tolist() == [0, 0, 0, 0, 1, 1]
    assert result.labels.tolist() == [-1, -1, -1, -1, 3, 3]
    torch.testing.assert_close(result.max_overlaps[4:], torch.tensor([0.9375, 0.6]))


def test_lower_index_wins_a_tie_of_rank():
    # Four priors alike around the gt's centre.
    for k in range(1, 5):
        expected = [1] * k + [0] * (4 - k)
        assert assign(SQUARES, [[0.0, 0, 16, 16]], k).gt_inds.tolist() == expected


def test_the_nearer_of_equal_ious_is_chosen():
    # Both priors lie within the gt with the same area; the second one's centre is nearer.
    priors = [[0.0, 0, 8, 8], [5.0, 5, 13, 13]]
    assert assign(priors, [[0.0, 0, 16, 16]], 1).gt_inds.tolist() == [0, 1]


def test_distance_counts_a_thousandth_of_its_share_of_the_greatest():
    # Centres 0 and 25 pixels from the gt's, the farthest 250: the first prior ranks 0.0001 lower for it.
    assert assign([SHIFTED, CONCENTRIC, FAR], [BOX], 1).gt_inds.tolist() == [0, 1, 0]
    for more, expected in ((0.0095, [0, 1, 0]), (0.0105, [1, 0, 0])):  # in IoU 0.000095 and 0.000105
        assert assign([wider(more), CONCENTRIC, FAR], [BOX], 1).gt_inds.tolist() == expected


def test_the_greatest_distance_is_that_of_the_image_without_its_padding():
    priors = torch.tensor([wider(0.0105), CONCENTRIC, FAR])
    gts = InstanceData(bboxes=torch.tensor([BOX]), labels=torch.tensor([0]))
    distant = InstanceData(bboxes=torch.tensor([[5000.0, 5000, 5100, 5100]]), labels=torch.tensor([0]))
    packed = PackedGts.from_instances([distant, gts, gts])
    valid = torch.ones(3, 3, dtype=torch.bool)
    valid[2, 2] = False  # what is farthest now is the first prior itself, which loses 0.001 for it
    batch = TopKAssigner(topk=1).assign_batch(PyramidPriors(priors, [3]), packed, valid)
    assert batch.assigned.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, -1]]
    nearer = torch.tensor([wider(0.0095), CONCENTRIC, FAR])
    batch = TopKAssigner(topk=1).assign_batch(PyramidPriors(nearer, [3]), packed, valid)
    assert batch.assigned.tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, -1]]


def test_no_distance_at_all():
    assert assign([SQUARES[0]], [[1.0, 1, 7, 7]], 9).gt_inds.tolist() == [1]


def test_higher_iou_wins_a_prior_and_of_equal_ones_the_lower_gt():
    boxes = [[0.0, 0, 8, 6], [0.0, 0, 8, 8], [0.0, 0, 8, 8]]
    result = assign([[0.0, 0, 8, 8]], boxes, 1)
    assert result.gt_inds.tolist() == [2]
    assert result.max_overlaps.tolist() == [1.0]


def test_a_chosen_prior_outside_is_background_and_not_replaced():
    # The best prior's centre (8, 4) lies on the gt's side; the second best is not taken in its place.
    priors = [[0.0, 0, 16, 8], [0.0, 0, 4, 4]]
    box = [[0.0, 0, 8, 8]]
    assert assign(priors, box, 1).gt_inds.tolist() == [0, 0]
    assert assign(priors, box, 2).gt_inds.tolist() == [0, 1]


def test_fewer_priors_than_k():
    assert assign(SQUARES[:2], [[0.0, 0, 16, 8]], 9).gt_inds.tolist() == [1, 1]


def test_padding_and_ignore_regions_leave_the_choice_to_others():
    scene = random_scene(1, 'mixed', 10, 96, 128)
    gts = PackedGts.from_instances([scene.gts])
    valid = torch.ones(1, len(scene.priors), dtype=torch.bool)
    valid[0, ::3] = False
    batch = TopKAssigner().assign_batch(PyramidPriors(scene.priors, scene.sizes), gts, valid)
    sizes = [int(level.sum()) for level in valid[0].split(scene.sizes)]
    alone = TopKAssigner().assign(InstanceData(priors=scene.priors[valid[0]]), sizes, scene.gts)
    assert torch.equal(batch.assigned[valid], alone.gt_inds)
    assert (batch.assigned[~valid] == -1).all()
    region = InstanceData(bboxes=torch.tensor([[0.0, 0, 64, 96]]))
    share = (scene.priors[:, 2].clamp(max=64) - scene.priors[:, 0].clamp(min=0)).clamp(min=0)
    share *= (scene.priors[:, 3].clamp(max=96) - scene.priors[:, 1].clamp(min=0)).clamp(min=0)
    share /= (scene.priors[:, 2] - scene.priors[:, 0]) * (scene.priors[:, 3] - scene.priors[:, 1])
    ignoring = TopKAssigner(ignore_iof_thr=0.5).assign(scene.predictions, scene.sizes, scene.gts, region)
    assert torch.equal(ignoring.gt_inds == -1, share > 0.5)
    assert (ignoring.gt_inds > 0).any()


@pytest.mark.parametrize('elements', [1, 3000, 2**30])
@pytest.mark.parametrize('free', [True, False])
def test_steps_do_not_matter(monkeypatch, elements, free):
    scenes = [random_scene(seed, 'mixed', count, 96, 128) for seed, count in enumerate((7, 0, 12, 1))]
    gts = PackedGts.from_instances([scene.gts for scene in scenes])
    arguments = PyramidPriors(scenes[0].priors, scenes[0].sizes), gts
    expected = TopKAssigner().assign_batch(*arguments)
    monkeypatch.setattr(rows, 'CPU_ELEMENTS', elements)
    monkeypatch.setattr(rows, 'DEVICE_ELEMENTS', elements)
    monkeypatch.setattr(rows, 'reads_are_free', lambda device: free)
    batch = TopKAssigner().assign_batch(*arguments)
    assert torch.equal(batch.assigned, expected.assigned)
    assert torch.equal(batch.ious, expected.ious)
    positives = (batch.assigned[2] > 0).nonzero()[:, 0].tolist()
    assert len(positives) > 20
    for prior in positives:
        box = scenes[2].boxes[batch.assigned[2, prior] - 1].double().tolist()
        iou = literal_iou(scenes[2].priors[prior].double().tolist(), box)
        assert batch.ious[2, prior].item() == pytest.approx(iou, abs=1e-6)


def test_bad_k_is_named():
    with pytest.raises(ValueError, match='topk must be at least 1, got 0'):
        TopKAssigner(topk=0)
