"""Candidates against the reference, against sorting in plain Python, and by hand."""

import math
from dataclasses import replace

import pytest
import torch
from samples import (
    SHAPES,
    Case,
    assert_identical,
    assert_same_candidates,
    cases_in,
    flat_case,
    make_priors,
    offsets_of,
    random_boxes,
    random_case,
    random_mask,
    single_images,
    tied_boxes,
)

from atss_ext import ops
from atss_ext.ops import reference

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TYPED_CASES = [
    pytest.param(case, id=f'{name}-{dtype}'.replace(' ', '_'))
    for dtype in FLOATS
    for name, case in cases_in(dtype).items()
]


def candidates(case: Case, grid: bool = False, ignored: torch.Tensor | None = None) -> ops.Candidates:
    return ops.center_topk(**case.topk_arguments(grid), ignored=ignored)


@pytest.mark.parametrize('case', TYPED_CASES)
def test_equals_reference(case):
    ours = candidates(case)
    assert ours.distances.dtype == reference.compute_dtype(case.priors.dtype)
    assert_same_candidates(ours, reference.center_topk(**case.topk_arguments(grid=False)))


@pytest.mark.parametrize('share', [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('grid', [False, True])
def test_ignored_priors_come_last(share, masked, grid):
    case = random_case((5, 0, 8), seed=4)
    if masked:
        case = replace(case, valid=random_mask(3, len(case.priors), 0.6, seed=1))
    ignored = random_mask(3, len(case.priors), share, seed=2)
    ours = candidates(case, grid, ignored)
    assert_same_candidates(ours, reference.center_topk(**case.topk_arguments(grid=False), ignored=ignored))
    images = torch.tensor([0] * 5 + [2] * 8)
    taken = ignored[images].gather(1, ours.prior_index) & ours.valid
    assert ((ours.distances == 1e8) == taken).all()
    for distances in ours.distances.split([min(9, h * w) for h, w in SHAPES], 1):
        assert (distances.diff(dim=1).nan_to_num(0) >= 0).all()


def literal_nearest(case: Case) -> list[list[int]]:
    """Every gt's candidates from sorting (squared distance, index); exact where coordinates are integers."""
    priors, boxes = case.priors.double().tolist(), case.boxes.double().tolist()
    ends, found = case.offsets.tolist(), []
    for gt, (x1, y1, x2, y2) in enumerate(boxes):
        image = next(b for b in range(case.num_images) if ends[b] <= gt < ends[b + 1])
        row, start = [], 0
        for size in case.sizes:
            usable = [n for n in range(start, start + size) if case.valid is None or case.valid[image, n]]
            ranked = sorted(
                ((a + c - x1 - x2) ** 2 + (b + d - y1 - y2) ** 2, n)
                for n, (a, b, c, d) in ((n, priors[n]) for n in usable)
            )
            row += [n for _, n in ranked[: case.k]]
            start += size
        found.append(row)
    return found


@pytest.mark.parametrize('k', [1, 2, 3, 4, 5, 9, 30])
@pytest.mark.parametrize('grid', [False, True])
@pytest.mark.parametrize('masked', [False, True])
def test_equals_sorting_by_hand(k, grid, masked):
    """Even integer coordinates: every distance is exact, and ties abound."""
    boxes = torch.cat([tied_boxes(), (random_boxes(25, 7) / 4).round() * 4])
    case = replace(single_images(boxes, k=k), offsets=offsets_of([9, 0, 23]))
    if masked:
        case = replace(case, valid=random_mask(3, len(case.priors), 0.4, seed=k))
    ours = candidates(case, grid)
    found = [row[valid].tolist() for row, valid in zip(ours.prior_index, ours.valid, strict=True)]
    assert found == literal_nearest(case)


@pytest.mark.parametrize('k', [1, 7, 15, 16, 17, 63, 64, 65, 200])
@pytest.mark.parametrize('sizes', [[64, 65, 128, 1, 331], [15, 16, 17, 255, 256, 257, 0, 33]], ids=str)
def test_equals_sorting_by_hand_off_the_grid(k, sizes):
    """Blocks of priors, whole and broken, near and far; half of the priors share their places."""
    case = flat_case(sizes, (6, 7), k)
    priors = (case.priors / 8).round() * 8
    case = replace(case, priors=priors, boxes=(case.boxes / 8).round() * 8)
    ours = candidates(case)
    found = [row[valid].tolist() for row, valid in zip(ours.prior_index, ours.valid, strict=True)]
    assert found == literal_nearest(case)


def test_literal_candidates():
    priors = torch.tensor([[0.0, 0, 2, 2], [4, 0, 6, 2], [2, 0, 4, 2], [0, 0, 10, 10], [0, 0, 4, 2]])
    boxes = torch.tensor([[2.0, 0, 4, 2]])
    found = ops.center_topk(priors, [3, 2], boxes, offsets_of([1]), 2)
    # Centres (1, 1), (5, 1), (3, 1) | (5, 5), (2, 1); the gt's is (3, 1). At distance 2 index 0 wins.
    assert found.prior_index.tolist() == [[2, 0, 4, 3]]
    assert found.distances.tolist() == [[0, 2, 1, pytest.approx(math.sqrt(20))]]


@pytest.mark.parametrize('grid', [False, True])
def test_places_nobody_fills_are_index_0_at_infinity(grid):
    case = random_case((2,), k=3)
    valid = torch.zeros(1, len(case.priors), dtype=torch.bool)
    valid[0, [5, 250, 317]] = True
    found = candidates(replace(case, valid=valid), grid)
    assert found.prior_index[0].tolist() == [5, 0, 0, 250, 0, 0, 317, 0, 0, 0, 0, 0, 0, 0]
    assert found.valid[0].nonzero()[:, 0].tolist() == [0, 3, 6]
    assert (found.distances[~found.valid] == math.inf).all()


@pytest.mark.parametrize('grid', [False, True])
@pytest.mark.parametrize('counts', [(0, 5, 9), (5, 0, 0, 9), (14,), (1, 1, 12)])
def test_an_image_does_not_depend_on_the_others(grid, counts):
    case = random_case(counts, seed=5)
    case = replace(case, valid=random_mask(len(counts), len(case.priors), 0.7))
    whole, start = candidates(case, grid), 0
    for image, count in enumerate(counts):
        own = slice(start, start + count)
        alone = replace(
            case, boxes=case.boxes[own], offsets=offsets_of([count]), valid=case.valid[image : image + 1]
        )
        assert_identical(candidates(alone, grid), [result[own] for result in whole])
        start += count


def test_no_distance_matrix_is_made():
    """60,000 priors x 5,000 gts in float32 would be 1.2 GB; results and centres are a few MB."""
    from torch.profiler import ProfilerActivity, profile

    priors, boxes = random_boxes(60000, 1, (4000, 4000)), random_boxes(5000, 2, (4000, 4000))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        found = ops.center_topk(priors, [60000], boxes, offsets_of([5000]), 9)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in recorded.key_averages())
    assert found.prior_index.numel() == 45000
    assert 0 < allocated < 8e6


GOOD = {
    'priors': make_priors(),
    'level_sizes': [height * width for height, width in SHAPES],
    'gt_boxes': torch.zeros(3, 4),
    'offsets': torch.tensor([0, 1, 3]),
    'k': 9,
}
COUNT = len(GOOD['priors'])


def ones(*shape: int, dtype: torch.dtype = torch.bool) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype)


# What both center_topk and atss_assign refuse.
BAD = [
    ({'k': 0}, 'k must be at least 1, got 0'),
    ({'k': -3}, 'k must be at least 1, got -3'),
    ({'level_sizes': [COUNT, 3]}, rf'\[{COUNT}, 3\] add up to {COUNT + 3}, but there are {COUNT} priors'),
    ({'level_sizes': [COUNT + 2, -2]}, rf'level sizes must .* got \[{COUNT + 2}, -2\]'),
    ({'level_sizes': [2**31, COUNT - 2**31]}, rf'level sizes must .* got \[{2**31}, '),
    ({'level_sizes': []}, 'there must be 1 to 16 levels, got 0'),
    ({'level_sizes': [COUNT] + [0] * 16}, 'there must be 1 to 16 levels, got 17'),
    ({'priors': torch.zeros(COUNT, 5)}, rf'priors must be \[..., 4\], got \[{COUNT}, 5\]'),
    ({'priors': torch.zeros(1, COUNT, 4)}, rf'priors must be \[N, 4\], got \[1, {COUNT}, 4\]'),
    ({'priors': torch.zeros(COUNT, 4).int()}, 'priors must hold floats, got Int'),
    ({'gt_boxes': torch.zeros(3, 4).long()}, 'gt_boxes must hold floats, got Long'),
    ({'gt_boxes': torch.zeros(3, 1, 4)}, r'gt_boxes must be \[N?T?, 4\], got \[3, 1, 4\]'),
    ({'gt_boxes': torch.zeros(3, 5)}, r'gt_boxes must be \[..., 4\], got \[3, 5\]'),
    ({'offsets': torch.tensor([0, 2, 1, 3])}, 'offsets must not decrease, got 2 before 1'),
    ({'offsets': torch.tensor([0, 1, 2])}, 'from 0 to 3, the number of boxes, got 0 to 2'),
    ({'offsets': torch.tensor([1, 2, 3])}, 'got 1 to 3'),
    ({'offsets': torch.tensor([0.0, 3])}, r'offsets must be int64 \[images \+ 1\], got Float \[2\]'),
    ({'offsets': torch.tensor([0])}, r'got Long \[1\]'),
    ({'valid': ones(3, COUNT)}, rf'valid must be bool \[2, {COUNT}\] .* got Bool \[3, {COUNT}\]'),
    ({'valid': ones(2, COUNT - 1)}, rf'got Bool \[2, {COUNT - 1}\]'),
    ({'valid': ones(2, COUNT, dtype=torch.uint8)}, rf'got Byte \[2, {COUNT}\]'),
]


def level(**changes) -> ops.GridLevel:
    good = ops.GridLevel(1, COUNT, 1, (8.0, 8.0), (0.0, 0.0), 0.0)
    return good._replace(**changes)


BAD_GRIDS = [
    ([level()] * 2, 'a grid has 3 shape and 5 geometry values a level, got 6 and 10 for 1 levels'),
    ([level(width=COUNT - 1)], rf'level 0 has {COUNT} priors, but its grid is \[1, {COUNT - 1}, 1\]'),
    ([level(anchors=0)], rf'grid is \[1, {COUNT}, 0\]'),
    ([level(height=-1, width=-COUNT)], rf'grid is \[-1, -{COUNT}, 1\]'),
    ([level(stride=(0.0, 8.0))], r'strides must be positive .* level 0 has \[0, 8, 0, 0, 0\]'),
    ([level(stride=(8.0, -1.0))], r'level 0 has \[8, -1, 0, 0, 0\]'),
    ([level(stride=(math.nan, 8.0))], r'level 0 has \[nan, 8, 0, 0, 0\]'),
    ([level(slack=-0.5)], r'slack not negative, level 0 has \[8, 8, 0, 0, -0.5\]'),
    ([level(stride=(8.0, math.inf))], r'must be finite, level 0 has \[8, inf, 0, 0, 0\]'),
    ([level(offset=(math.nan, 0.0))], r'must be finite, level 0 has \[8, 8, nan, 0, 0\]'),
    ([level(offset=(0.0, -math.inf))], r'must be finite, level 0 has \[8, 8, 0, -inf, 0\]'),
    ([level(slack=math.inf)], r'must be finite, level 0 has \[8, 8, 0, 0, inf\]'),
    ([level(slack=math.nan)], r'must be finite, level 0 has \[8, 8, 0, 0, nan\]'),
]

# What int64 arithmetic takes for a level of the right size: sums and products that wrap around.
OVERFLOWING = [
    (
        {'priors': torch.zeros(8, 4), 'level_sizes': [2**32, 2**32 + 8, 2**63 - 2**33, 2**62, 2**62]},
        '4294967304',
    ),
    (
        {
            'priors': torch.zeros(3, 4),
            'level_sizes': [3],
            'grid': [ops.GridLevel(8589934605, 545761658833005647, 1, (8.0, 8.0), (0.0, 0.0), 0.0)],
        },
        r'level 0 has 3 priors, but its grid is \[8589934605, 545761658833005647, 1\]',
    ),
]


@pytest.mark.parametrize(
    ('change', 'sentence'), [*BAD, ({'ignored': ones(2, 3)}, r'ignored .* got Bool \[2, 3\]')]
)
def test_bad_arguments_are_named(change, sentence, route):
    with pytest.raises(ValueError, match=sentence):
        ops.center_topk(**{**GOOD, **change})


@pytest.mark.parametrize(('change', 'sentence'), OVERFLOWING)
def test_overflowing_sizes_are_named(change, sentence, route):
    with pytest.raises(ValueError, match=sentence):
        ops.center_topk(**{**GOOD, **change})


def test_the_overflowing_sizes_do_wrap_around():
    """They are what they are called: modulo 2^64 they fit their priors."""
    (sizes, _), (grid, _) = OVERFLOWING
    assert sum(sizes['level_sizes']) % 2**64 == len(sizes['priors'])
    assert math.prod(grid['grid'][0][:3]) % 2**64 == len(grid['priors'])


@pytest.mark.parametrize(('grid', 'sentence'), BAD_GRIDS)
def test_bad_grids_are_named(grid, sentence, route):
    with pytest.raises(ValueError, match=sentence):
        ops.center_topk(**{**GOOD, 'level_sizes': [COUNT], 'grid': grid})
