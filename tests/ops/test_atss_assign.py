"""The whole assignment against the reference, a literal transcription of the paper, and by hand."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import (
    SHAPES,
    Case,
    assert_identical,
    assert_same_assignment,
    assign_cases,
    huge_boxes,
    many_gts,
    offsets_of,
    random_boxes,
    random_case,
    random_mask,
    single_images,
    tied_boxes,
)
from scenes import KINDS, literal_atss, literal_candidates, literal_ignored, literal_iou, random_scene
from test_center_topk import BAD, BAD_GRIDS, COUNT, GOOD, OVERFLOWING, TYPED_CASES

from atss_ext import ops
from atss_ext.ops import reference

CASES = assign_cases()


@pytest.mark.parametrize('case', TYPED_CASES)
def test_equals_reference(case):
    ours = ops.atss_assign(**case.arguments(grid=False))
    assert ours.ious.dtype == reference.compute_dtype(case.priors.dtype)
    assert_same_assignment(ours, reference.atss_assign(**case.arguments(grid=False)))


def lattice_boxes(draw, count: int, step: int) -> torch.Tensor:
    """Boxes whose corners are multiples of ``step``: ties of distance and of IoU abound."""
    numbers = st.lists(st.integers(-2, 40), min_size=4, max_size=4)
    rows = [[float(step * n) for n in draw(numbers)] for _ in range(count)]
    corners = torch.tensor(rows).view(count, 2, 2)
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


@st.composite
def lattice_cases(draw) -> Case:
    counts = draw(st.lists(st.integers(0, 8), min_size=1, max_size=4))
    boxes = lattice_boxes(draw, sum(counts), draw(st.sampled_from([1, 2, 4])))
    case = replace(
        random_case((0,)),
        boxes=boxes,
        offsets=offsets_of(counts),
        k=draw(st.integers(1, 12)),
        ensure_positive=draw(st.booleans()),
    )
    if draw(st.booleans()):
        mask = random_mask(len(counts), len(case.priors), draw(st.floats(0, 1)), draw(st.integers(0, 99)))
        case = replace(case, valid=mask)
    if draw(st.booleans()):
        regions = [draw(st.integers(0, 2)) for _ in counts]
        ignored = {
            'ignore_boxes': lattice_boxes(draw, sum(regions), 4),
            'ignore_offsets': offsets_of(regions),
        }
        case = replace(case, ignore_iof_thr=draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])), **ignored)
    return case


@settings(max_examples=250, deadline=None, derandomize=True)
@given(case=lattice_cases(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_equals_reference_on_a_lattice(case, dtype):
    case = case.to(dtype)
    expected = reference.atss_assign(**case.arguments(grid=False))
    assert_same_assignment(ops.atss_assign(**case.arguments(grid=False)), expected)
    assert_same_assignment(ops.atss_assign(**case.arguments()), expected)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('iof_thr', [0, 0.4])
def test_equals_the_literal_algorithm(kind, seed, iof_thr):
    """Plain Python in float64, which knows nothing of the package."""
    scene = random_scene(seed, kind, 12, 90 + 13 * seed, 140, num_ignored=2)
    scene.priors, scene.boxes, scene.ignored = (
        t.double() for t in (scene.priors, scene.boxes, scene.ignored)
    )
    regions = offsets_of([len(scene.ignored)])
    for k in (1, 4, 9):
        ours = ops.atss_assign(
            scene.priors,
            scene.sizes,
            scene.boxes,
            offsets_of([12]),
            k,
            None,
            scene.ignored,
            regions,
            iof_thr,
        )
        expected = literal_atss(scene, k, literal_ignored(scene, iof_thr))
        assert ours.assigned[0].tolist() == expected
        assert ours.num_positives.tolist() == [expected.count(gt + 1) for gt in range(12)]


def test_values_equal_the_literal_algorithm():
    scene = random_scene(5, 'mixed', 15, 120, 160)
    ours = ops.atss_assign(scene.priors.double(), scene.sizes, scene.boxes.double(), offsets_of([15]), 9)
    priors, boxes = scene.priors.double().tolist(), scene.boxes.double().tolist()
    for prior, (gt, iou) in enumerate(zip(ours.assigned[0].tolist(), ours.ious[0].tolist(), strict=True)):
        assert iou == (literal_iou(priors[prior], boxes[gt - 1]) if gt > 0 else 0)
    for gt, threshold in enumerate(ours.thresholds.tolist()):
        ious = [literal_iou(priors[n], boxes[gt]) for n in literal_candidates(scene, gt, 9, set())]
        mean = sum(ious) / len(ious)
        expected = mean + math.sqrt(sum((iou - mean) ** 2 for iou in ious) / (len(ious) - 1))
        assert threshold == pytest.approx(expected, rel=1e-12)


def boxes_of(*rows) -> torch.Tensor:
    return torch.tensor([[float(x) for x in row] for row in rows])


def assign_one(priors: torch.Tensor, gts: torch.Tensor, k: int = 9, **options) -> ops.Assignment:
    return ops.atss_assign(priors, [len(priors)], gts, offsets_of([len(gts)]), k, **options)


def test_literal_threshold():
    """Three candidates of IoU 1, 1/2, 0: mean 1/2, deviation 1/2, and an IoU at the threshold is positive."""
    priors = boxes_of((0, 0, 4, 4), (0, 0, 4, 8), (40, 0, 44, 4))
    result = assign_one(priors, boxes_of((0, 0, 4, 4)))
    assert result.thresholds.tolist() == [1.0]
    assert result.assigned.tolist() == [[1, 0, 0]]
    assert result.ious.tolist() == [[1, 0, 0]]


def test_equal_candidates_are_all_positive():
    """Their deviation is 0 and each IoU is the threshold: >= takes them, > would take none."""
    result = assign_one(boxes_of((0, 0, 4, 8), (4, 0, 8, 8), (0, 0, 4, 8)), boxes_of((0, 0, 8, 8)))
    assert result.thresholds.tolist() == [0.5]
    assert result.assigned.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(('inset', 'positive'), [(0.0, 0), (0.0099, 0), (0.0101, 1), (1.0, 1)])
@pytest.mark.parametrize('side', range(4))
def test_center_margin(side, inset, positive):
    """A centre a hundredth of a pixel or less inside an edge does not count as inside."""
    gt = [-10.0, -10, 10, 10]
    gt[side] = -inset if side < 2 else inset
    prior = boxes_of((-4, -4, 4, 4)).double()
    result = assign_one(prior, torch.tensor([gt]).double())
    assert result.assigned.tolist() == [[positive]]
    assert result.num_positives.tolist() == [positive]


def test_conflicts_go_to_the_higher_iou_then_to_the_lower_gt():
    priors = boxes_of((0, 0, 8, 8))
    lesser, better, same = (0, 0, 8, 12), (0, 0, 8, 10), (0, 0, 8, 10)
    result = assign_one(priors, boxes_of(lesser, better, same))
    assert result.assigned.tolist() == [[2]]
    assert result.num_positives.tolist() == [0, 1, 0]
    assert result.ious[0].tolist() == pytest.approx([0.8])
    assert assign_one(priors, boxes_of(same, lesser, better)).assigned.tolist() == [[1]]


def test_equal_distances_take_the_lower_prior():
    priors = boxes_of((8, 0, 16, 8), (-8, 0, 0, 8), (0, 8, 8, 16), (0, -8, 8, 0))
    result = assign_one(priors, boxes_of((-8, -8, 16, 16)), k=2)
    assert result.assigned.tolist() == [[1, 1, 0, 0]]


def test_ensured_gt_takes_a_free_prior_before_a_nearer_held_one():
    # IoUs 1, 1/2, 0 and a threshold of 1: the first gt wins prior 0 alone, the second may have prior 1.
    priors, gts = boxes_of((0, 0, 8, 8), (0, 0, 4, 8), (40, 0, 44, 4)), boxes_of((0, 0, 8, 8), (0, 0, 8, 8))
    assert assign_one(priors, gts).assigned.tolist() == [[1, 0, 0]]
    result = assign_one(priors, gts, ensure_positive=True)
    assert result.assigned.tolist() == [[1, 2, 0]]
    assert result.ious.tolist() == [[1, 0.5, 0]]
    assert result.num_positives.tolist() == [1, 1]


def test_ensured_gt_never_takes_the_last_prior_of_another():
    result = assign_one(boxes_of((0, 0, 8, 8)), boxes_of((0, 0, 8, 8), (0, 0, 8, 8)), ensure_positive=True)
    assert result.assigned.tolist() == [[1]]
    assert result.num_positives.tolist() == [1, 0]


def test_ensured_gt_takes_from_a_holder_of_two():
    priors = boxes_of((0, 0, 4, 8), (4, 0, 8, 8))
    gts = boxes_of((0, 0, 8, 8), (0, 0, 8, 8))
    result = assign_one(priors, gts, ensure_positive=True)
    assert result.assigned.tolist() == [[2, 1]]
    assert result.num_positives.tolist() == [1, 1]


def test_ensured_gt_prefers_a_centre_inside():
    # Prior 0 overlaps more, but its centre lies outside the gt.
    priors, gt = boxes_of((6, 0, 18, 8), (0, 0, 2, 2), (90, 90, 91, 91)), boxes_of((0, 0, 10, 8))
    ious = [literal_iou(prior, gt[0].tolist()) for prior in priors.tolist()]
    assert ious[0] > ious[1]
    result = assign_one(priors, gt, ensure_positive=True)
    assert result.assigned.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize('grid', [False, True])
def test_every_gt_is_ensured_where_priors_suffice(grid):
    case = replace(random_case((30, 0, 20), seed=9), ensure_positive=True)
    plain = ops.atss_assign(**replace(case, ensure_positive=False).arguments(grid))
    ensured = ops.atss_assign(**case.arguments(grid))
    assert int((plain.num_positives == 0).sum()) > 3
    assert (ensured.num_positives > 0).all()
    assert int((ensured.assigned > 0).sum()) == int(ensured.num_positives.sum())


def test_priors_that_take_no_part():
    case = random_case((6, 0, 9), seed=2)
    valid = random_mask(3, len(case.priors), 0.5)
    result = ops.atss_assign(**replace(case, valid=valid).arguments(grid=False))
    assert ((result.assigned == -1) == ~valid).all()
    nobody = ops.atss_assign(**replace(case, valid=torch.zeros_like(valid)).arguments(grid=False))
    assert (nobody.assigned == -1).all()
    assert (nobody.thresholds == math.inf).all()
    assert not nobody.ious.any()


def test_masking_a_prior_is_leaving_it_out():
    case = random_case((10,), seed=3)
    keep = random_mask(1, len(case.priors), 0.6)
    sizes = [int(level.sum()) for level in keep[0].split(case.sizes)]
    alone = replace(case, priors=case.priors[keep[0]], sizes=sizes, grid=None)
    masked = ops.atss_assign(**replace(case, valid=keep).arguments())
    expected = ops.atss_assign(**alone.arguments())
    results = [result[:, keep[0]] for result in masked[:2]]
    assert_identical([*results, *masked[2:]], expected)


def test_ignore_regions():
    """Two of four priors lie in the region; the one that is positive stays positive."""
    priors = boxes_of((0, 0, 8, 8), (0, 0, 6, 8), (40, 0, 48, 8), (20, 0, 28, 8))
    gts, region = boxes_of((0, 0, 8, 8)), boxes_of((0, 0, 8, 8), (20, 0, 24.5, 8), (40, 0, 44, 8))
    regions = {'ignore_boxes': region, 'ignore_offsets': offsets_of([3]), 'ignore_iof_thr': 0.5}
    result = assign_one(priors, gts, k=1, **regions)
    # More than half of prior 3 is inside, exactly half of prior 2 is not enough.
    assert assign_one(priors, gts, k=4).assigned.tolist() == [[1, 0, 0, 0]]
    assert result.assigned.tolist() == [[-1, -1, 0, -1]]
    assert assign_one(priors, gts, k=4, **regions).assigned.tolist() == [[1, -1, 0, -1]]
    off = {**regions, 'ignore_iof_thr': 0}
    assert assign_one(priors, gts, k=4, **off).assigned.tolist() == [[1, 0, 0, 0]]


def test_images_without_gts_ignore_nothing():
    everything = boxes_of((-999, -999, 999, 999), (-999, -999, 999, 999))
    case = random_case((0, 5), ignore_boxes=everything, ignore_offsets=offsets_of([1, 1]))
    result = ops.atss_assign(**case.arguments(grid=False))
    assert (result.assigned[0] == 0).all()
    assert (
        result.assigned[1] == -1
    ).all()  # all equally far: the lowest indices are candidates, none positive


def image_alone(case: Case, image: int) -> Case:
    start, end = case.offsets[image : image + 2].tolist()
    own = replace(
        case,
        boxes=case.boxes[start:end],
        offsets=offsets_of([end - start]),
        valid=None if case.valid is None else case.valid[image : image + 1],
    )
    if case.ignore_offsets is None:
        return own
    first, last = case.ignore_offsets[image : image + 2].tolist()
    return replace(own, ignore_boxes=case.ignore_boxes[first:last], ignore_offsets=offsets_of([last - first]))


@pytest.mark.parametrize('grid', [False, True])
@pytest.mark.parametrize('name', CASES)
def test_an_image_does_not_depend_on_the_others(name, grid):
    case = CASES[name]
    whole = ops.atss_assign(**case.arguments(grid))
    for image in range(case.num_images):
        alone = ops.atss_assign(**image_alone(case, image).arguments(grid))
        own = slice(*case.offsets[image : image + 2].tolist())
        rows = [result[image : image + 1] for result in whole[:2]]
        assert_identical(alone, [*rows, *(result[own] for result in whole[2:])])


@pytest.mark.parametrize('order', [(2, 0, 1), (1, 2, 0)])
def test_images_in_another_order(order):
    case = random_case((5, 0, 12), seed=6)
    images = case.boxes.split(case.offsets.diff().tolist())
    shuffled = replace(
        case,
        boxes=torch.cat([images[i] for i in order]),
        offsets=offsets_of([len(images[i]) for i in order]),
    )
    ours, expected = (ops.atss_assign(**c.arguments()) for c in (shuffled, case))
    assert torch.equal(ours.assigned, expected.assigned[list(order)])
    assert torch.equal(ours.ious, expected.ious[list(order)])


def test_gts_in_another_order():
    """Without ties the same priors go to the same boxes, whatever their numbers."""
    case = random_case((20,), seed=6)
    turned = replace(case, boxes=case.boxes.flip(0))
    ours, expected = ops.atss_assign(**turned.arguments()), ops.atss_assign(**case.arguments())
    renamed = torch.where(ours.assigned > 0, 21 - ours.assigned, ours.assigned)
    assert torch.equal(renamed, expected.assigned)
    assert torch.equal(ours.thresholds.flip(0), expected.thresholds)


def test_overflowing_distances_leave_a_gt_without_candidates():
    result = ops.atss_assign(**single_images(huge_boxes(1e20)).arguments())
    assert result.thresholds.isinf().tolist() == [False, True, True, True, False]
    assert result.num_positives[1:4].tolist() == [0, 0, 0]
    assert result.num_positives[4] > 0


def test_nothing_is_kept_between_calls():
    case, other = single_images(tied_boxes()), many_gts(600)
    first = ops.atss_assign(**case.arguments())
    ops.atss_assign(**other.arguments())
    assert_identical(ops.atss_assign(**case.arguments()), first)


def test_inputs_are_left_alone():
    case = replace(random_case((6, 9), 2, (2, 3)), valid=random_mask(2, 318, 0.5), ensure_positive=True)
    case = replace(case, valid=random_mask(2, len(case.priors), 0.5))
    tensors = {n: a for n, a in case.arguments().items() if isinstance(a, torch.Tensor)}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    ops.atss_assign(**case.arguments())
    assert len(tensors) == 6
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize(('change', 'sentence'), [*BAD, *OVERFLOWING])
def test_bad_arguments_are_named(change, sentence, route):
    with pytest.raises(ValueError, match=sentence):
        ops.atss_assign(**{**GOOD, **change})


@pytest.mark.parametrize(('grid', 'sentence'), BAD_GRIDS)
def test_bad_grids_are_named(grid, sentence, route):
    with pytest.raises(ValueError, match=sentence):
        ops.atss_assign(**{**GOOD, 'level_sizes': [COUNT], 'grid': grid})


@pytest.mark.parametrize(
    ('boxes', 'offsets', 'sentence'),
    [
        (random_boxes(2), None, r'ignore_boxes need ignore_offsets, int64 \[images \+ 1\]'),
        (random_boxes(2), offsets_of([1, 2]), 'ignore_offsets must run from 0 to 2, .* got 0 to 3'),
        (random_boxes(2), offsets_of([2]), 'ignore_offsets must have 3 entries like offsets, got 2'),
        (random_boxes(2), offsets_of([1, 1]).int(), r'ignore_offsets must be int64 .* got Int \[3\]'),
        (random_boxes(2).long(), offsets_of([1, 1]), 'ignore_boxes must hold floats, got Long'),
        (torch.zeros(2, 5), offsets_of([1, 1]), r'ignore_boxes must be \[..., 4\], got \[2, 5\]'),
        (torch.zeros(2, 1, 4), offsets_of([1, 1]), r'ignore_boxes must be \[S, 4\], got \[2, 1, 4\]'),
    ],
)
def test_bad_ignore_regions_are_named(boxes, offsets, sentence, route):
    regions = {'ignore_boxes': boxes, 'ignore_offsets': offsets, 'ignore_iof_thr': 0.5}
    with pytest.raises(ValueError, match=sentence):
        ops.atss_assign(**GOOD, **regions)
    off = ops.atss_assign(**GOOD, **{**regions, 'ignore_iof_thr': 0})
    assert_identical(off, ops.atss_assign(**GOOD))


@pytest.mark.parametrize('wants', ['priors', 'boxes', 'ignore_boxes'])
@pytest.mark.parametrize('grid', [False, True])
def test_nothing_carries_a_gradient(wants, grid, route):
    """A choice has no derivative; a result that claimed one would only fail, or mislead, in backward."""
    case = random_case((5, 0, 12), regions=(1, 2, 0))
    case = replace(case, **{wants: getattr(case, wants).clone().requires_grad_()})
    ignored = random_mask(3, len(case.priors), 0.3)
    candidates = ops.center_topk(**case.topk_arguments(grid), ignored=ignored)
    results = [*ops.atss_assign(**case.arguments(grid)), *candidates]
    results += ops.assign_candidates(candidates, case.priors, case.boxes, case.offsets)
    assert [result.requires_grad for result in results] == [False] * 10


def test_sixteen_levels_are_served():
    sizes = [1] * 15 + [len(GOOD['priors']) - 15]
    case = replace(random_case((4,)), sizes=sizes, grid=None)
    expected = reference.atss_assign(**case.arguments(grid=False))
    assert_same_assignment(ops.atss_assign(**case.arguments()), expected)
    assert len(SHAPES) < 16
