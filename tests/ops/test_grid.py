"""The grid route against the search through any priors: bit for bit, on mmdet's anchors."""

import functools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from mmengine.structures import InstanceData
from samples import (
    SHAPES,
    Case,
    assert_identical,
    make_priors,
    offsets_of,
    random_boxes,
    random_case,
    rectangle_mask,
    tied_boxes,
)
from torch.utils._python_dispatch import TorchDispatchMode

from atss_ext import ops
from atss_ext.assigners import PackedGts
from atss_ext.models.dense_heads.prior_validity import valid_priors
from atss_ext.models.dense_heads.pyramid_priors import generate_priors
from atss_ext.registry import MODELS

RATIOS = ((1.0,), (0.5, 1.0, 2.0))
# Strides as configs write them: one number a level, or (w, h).
STRIDES = ((8, 16, 32), (4, 8), (16,), ((8, 4), (16, 8)), ((6, 10), (12, 20)), (13, 50))


def anchor_generator(strides=(8, 16, 32), ratios=(1.0,), scales: int = 1, offset: float = 0.0):
    return AnchorGenerator(
        strides=list(strides),
        ratios=list(ratios),
        octave_base_scale=8,
        scales_per_octave=scales,
        center_offset=offset,
    )


def feature_shapes(generator: AnchorGenerator, height: int, width: int) -> tuple[tuple[int, int], ...]:
    return tuple((math.ceil(height / y), math.ceil(width / x)) for x, y in generator.strides)


def grid_case(generator: AnchorGenerator, height: int, width: int, boxes: torch.Tensor, **changes) -> Case:
    """All boxes in one image of this size."""
    shapes = feature_shapes(generator, height, width)
    pyramid = generate_priors(generator, shapes, torch.device('cpu'))
    assert pyramid.grid is not None
    case = Case(pyramid.boxes, pyramid.level_sizes, boxes, offsets_of([len(boxes)]), grid=pyramid.grid)
    return replace(case, **changes)


def assert_routes_agree(case: Case) -> ops.Assignment:
    assert case.grid is not None
    found = ops.center_topk(**case.topk_arguments())
    assert_identical(found, ops.center_topk(**case.topk_arguments(grid=False)))
    result = ops.atss_assign(**case.arguments())
    assert_identical(result, ops.atss_assign(**case.arguments(grid=False)))
    return result


def mixed_gts(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Anywhere, on the corners, on cell centres, midway between them, and far outside."""
    corners = torch.tensor([[0.0, 0], [width, 0], [0, height], [width, height]])
    cells = torch.tensor([[64.0, 32], [60, 36], [68, 32], [8, 4]])
    outside = torch.tensor([[-5e3, 10], [10, 7e4], [1e6, 1e6], [-300, -300]])
    centers = torch.cat([corners, cells, outside])
    sizes = torch.tensor([[24.0, 40]])
    return torch.cat(
        [random_boxes(20, seed, (width, height)), torch.cat([centers - sizes / 2, centers + sizes / 2], 1)]
    )


@pytest.mark.parametrize('strides', STRIDES, ids=str)
@pytest.mark.parametrize('ratios', RATIOS, ids=str)
@pytest.mark.parametrize('scales', [1, 2, 3])
@pytest.mark.parametrize('offset', [0.0, 0.5])
def test_every_anchor_setting(strides, ratios, scales, offset):
    generator = anchor_generator(strides, ratios, scales, offset)
    for height, width in ((97, 131), (160, 224)):
        boxes = mixed_gts(height, width)
        for k in (1, 9, 9 * len(ratios) * scales):
            result = assert_routes_agree(grid_case(generator, height, width, boxes, k=k))
            assert k == 1 or int(result.num_positives.sum()) > 0


@pytest.mark.parametrize('shape', [(1, 400), (400, 1), (5, 400), (7, 7), (8, 8), (9, 17), (1, 1)])
@pytest.mark.parametrize('ratios', RATIOS, ids=str)
def test_single_rows_columns_and_cells(shape, ratios):
    generator = anchor_generator(ratios=ratios)
    boxes = mixed_gts(*shape)
    for k in (1, 2, 5, 9, 40):
        assert_routes_agree(grid_case(generator, *shape, boxes, k=k))


coordinates = st.one_of(
    st.integers(-80, 400).map(float),
    st.integers(-40, 100).map(lambda n: n * 4.0),
    st.floats(-100, 420, width=32, allow_subnormal=False),
    st.floats(-1e7, 1e7, width=32, allow_subnormal=False),
)


@st.composite
def grid_cases(draw) -> Case:
    generator = anchor_generator(
        draw(st.sampled_from(STRIDES)),
        draw(st.sampled_from(RATIOS)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([0.0, 0.5])),
    )
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    corners = draw(st.lists(st.lists(coordinates, min_size=4, max_size=4), max_size=12))
    corners = torch.tensor(corners).view(-1, 2, 2)
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1) if len(corners) else torch.zeros(0, 4)
    case = grid_case(generator, height, width, boxes, k=draw(st.integers(1, 40)))
    case = replace(case, ensure_positive=draw(st.booleans()))
    if draw(st.booleans()):
        extent = draw(st.integers(0, 320)), draw(st.integers(0, 320))
        case = replace(case, valid=rectangle_mask(case.priors, [extent]))
    if draw(st.booleans()):
        regions = random_boxes(draw(st.integers(0, 3)), draw(st.integers(0, 99)), (width, height))
        thr = draw(st.sampled_from([0.1, 0.5]))
        ignored = {
            'ignore_boxes': regions,
            'ignore_offsets': offsets_of([len(regions)]),
            'ignore_iof_thr': thr,
        }
        case = replace(case, **ignored)
    return case


@settings(max_examples=300, deadline=None, derandomize=True)
@given(case=grid_cases(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_any_scene(case, dtype):
    assert_routes_agree(case.to(dtype))


def image_metas(shapes: list[tuple[int, int]]) -> list[dict]:
    padded = [tuple(-(-side // 32) * 32 for side in shape) for shape in shapes]
    return [{'img_shape': s, 'pad_shape': p} for s, p in zip(shapes, padded, strict=True)]


@pytest.mark.parametrize('border', [-1, 0, 10])
@pytest.mark.parametrize('ratios', RATIOS, ids=str)
@pytest.mark.parametrize('scales', [1, 3])
@pytest.mark.parametrize('ignored', [False, True])
def test_padded_images(border, ratios, scales, ignored):
    """Images of one batch differ in size; the padding and the border's anchors take no part."""
    generator = anchor_generator((4, 8, 16, 32), ratios, scales)
    images = [(160, 224), (97, 224), (160, 33), (40, 50), (1, 1)]
    counts = [24, 0, 24, 24, 1]
    shapes = feature_shapes(generator, 160, 224)
    boxes = torch.cat(
        [mixed_gts(h, w, seed)[:n] for seed, (n, (h, w)) in enumerate(zip(counts, images, strict=True))]
    )
    case = grid_case(generator, 160, 224, boxes, offsets=offsets_of(counts))
    valid = valid_priors(generator, case.priors, shapes, image_metas(images), border)
    assert not valid.all()
    case = replace(case, valid=valid)
    if ignored:
        regions = {
            'ignore_boxes': random_boxes(9, 5, (224, 160)),
            'ignore_offsets': offsets_of([3, 1, 2, 0, 3]),
        }
        case = replace(case, **regions, ignore_iof_thr=0.3)
    result = assert_routes_agree(case)
    assert (result.assigned[~valid] == -1).all()
    assert_routes_agree(replace(case, ensure_positive=True))


@pytest.mark.parametrize('share', [0.01, 0.1, 0.5])
@pytest.mark.parametrize('k', [1, 9, 30])
def test_scattered_masks(share, k):
    """Holes in the mask send the search far from its first window."""
    generator = anchor_generator(ratios=RATIOS[1])
    case = grid_case(generator, 300, 300, mixed_gts(300, 300), k=k)
    valid = torch.rand(1, len(case.priors)) < share
    assert_routes_agree(replace(case, valid=valid))


@pytest.mark.parametrize('far', [-3e8, 3e8])
@pytest.mark.parametrize('share', [0.5, 1.0])
def test_gts_farther_away_than_ignored_priors_rank(far, share):
    """Ignored priors rank by a fixed distance wherever they are: the first of the level, not those nearby."""
    case = random_case((6,))
    case = replace(case, boxes=case.boxes + far)
    ignored = torch.rand(1, len(case.priors)) < share
    ours = ops.center_topk(**case.topk_arguments(), ignored=ignored)
    assert_identical(ours, ops.center_topk(**case.topk_arguments(grid=False), ignored=ignored))
    first = ignored[0, : case.sizes[0]].nonzero()[:9, 0]
    assert torch.equal(ours.prior_index[:, :9], first.expand(6, -1))


def slackened(case: Case, factor: float, extra: float) -> Case:
    levels = [level._replace(slack=level.slack * factor + extra) for level in case.grid]
    return replace(case, grid=tuple(levels))


@pytest.mark.parametrize('extra', [1e-3, 1.0, 9.0, 500.0, 1e30])
def test_too_much_slack_changes_nothing(extra):
    case = grid_case(anchor_generator(scales=3), 200, 264, mixed_gts(200, 264))
    assert_routes_agree(slackened(case, 1, extra))


def jittered_case(amount: float) -> Case:
    """Priors up to ``amount`` pixels beside their cells, and gts where a neighbour is as near as another."""
    centers = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing='xy'), -1).view(
        -1, 2
    )
    jitter = (torch.rand(1600, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1) * amount
    jitter[[0, -1]] = 0
    priors = torch.cat([centers * 8 + jitter - 32, centers * 8 + jitter + 32], 1)
    grid = ops.GridLevel(40, 40, 1, (8.0, 8.0), (0.0, 0.0), float(jitter.abs().max()) + 1e-4)
    places = torch.rand(500, 2, generator=torch.Generator().manual_seed(4)) * 320
    boxes = torch.cat([places - 20, places + 20], 1)
    return Case(priors, [1600], boxes, offsets_of([500]), 9, grid=(grid,))


@pytest.mark.parametrize('amount', [0.008, 0.5, 3.0, 7.9])
@pytest.mark.parametrize('k', [1, 2, 5, 9, 25])
def test_slack_is_what_it_says(amount, k):
    """Centres anywhere within the slack: also where neighbours change places."""
    assert_routes_agree(replace(jittered_case(amount), k=k))


def test_the_slack_is_needed():
    """The same priors, called exact, go wrong: the tests above do see a missing slack."""
    case = jittered_case(3.0)
    without = replace(case, grid=(case.grid[0]._replace(slack=0.0),))
    ours, expected = (ops.center_topk(**c.topk_arguments()) for c in (without, case))
    assert not torch.equal(ours.prior_index, expected.prior_index)


def rounded_row() -> tuple[torch.Tensor, torch.Tensor]:
    """A row of cells 8 pixels apart, two of which are rounded towards a gt as far as from another."""
    cells = torch.arange(2, 700, dtype=torch.float64)
    left, right = torch.full_like(cells, 16.0), 16 * cells - 16
    # Six tenths of an ulp of the sum of corners, which float32 rounds to a whole one.
    left[611 - 2] += 0.6 * 2**-10
    left[614 - 2] -= 0.6 * 2**-10
    rows = torch.ones_like(cells) * 8
    return torch.stack([left, -rows, right, rows], 1).float(), torch.tensor([[4884.0, -8, 4916, 8]])


def test_the_slack_covers_the_rounding_of_centres():
    priors, gt = rounded_row()
    grid = ops.find_grid(priors, [(1, len(priors))], [1])
    case = Case(priors, [len(priors)], gt, offsets_of([1]), 3, grid=grid)
    assert ops.center_topk(**case.topk_arguments(grid=False)).prior_index.tolist() == [[610, 611, 609]]
    assert_routes_agree(case)


@pytest.mark.parametrize('scales', [1, 3])
@pytest.mark.parametrize('ratios', RATIOS, ids=str)
def test_find_grid_describes_anchors(scales, ratios):
    generator = anchor_generator(((8, 4), (16, 8)), ratios, scales, 0.5)
    case = grid_case(generator, 97, 131, torch.zeros(0, 4))
    shapes = feature_shapes(generator, 97, 131)
    for level, shape, stride in zip(case.grid, shapes, generator.strides, strict=True):
        assert (level.height, level.width, level.anchors) == (*shape, scales * len(ratios))
        assert level.stride == pytest.approx(stride, rel=1e-6)
        assert level.offset == pytest.approx(
            [min(stride) / 2] * 2, abs=1e-4
        )  # mmdet's base size is the shorter
        assert 0 <= level.slack < 1e-4


def test_find_grid_of_nothing():
    empty = ops.find_grid(torch.zeros(0, 4), [(0, 3), (0, 0)], [1, 1])
    case = Case(torch.zeros(0, 4), [0, 0], random_boxes(2), offsets_of([2]), grid=empty)
    result = assert_routes_agree(case)
    assert result.thresholds.isinf().all()


def no_grids() -> dict[str, torch.Tensor]:
    good = make_priors()
    generator = torch.Generator().manual_seed(0)
    moved, stretched, broken = good.clone(), good.clone(), good.clone()
    moved[100] += 1
    stretched[:247] += stretched[:247] * torch.tensor([1e-3, 0, 1e-3, 0]) * torch.arange(247)[:, None]
    broken[5, 0] = math.nan
    turned = torch.cat([good[:247].view(13, 19, 4).transpose(0, 1).reshape(-1, 4), good[247:]])
    return {
        'shuffled': good[torch.randperm(len(good), generator=generator)],
        'backwards': good.flip(0),
        'one moved': moved,
        'stretched': stretched,
        'column by column': turned,
        'NaN': broken,
        'all in one place': good[:1].expand_as(good),
        'one too few': good[:-1],
        'one too many': torch.cat([good, good[-1:]]),
    }


@pytest.mark.parametrize('name', no_grids())
def test_find_grid_refuses_what_is_none(name):
    assert ops.find_grid(make_priors(), SHAPES, [1] * 5) is not None
    assert ops.find_grid(no_grids()[name], SHAPES, [1] * 5) is None


@pytest.mark.parametrize(
    ('shapes', 'anchors'),
    [
        ([(19, 13), *SHAPES[1:]], [1] * 5),
        ([(1, 247), *SHAPES[1:]], [1] * 5),
        (SHAPES, [3] * 5),
        ([(13, 19), (7, 5), *SHAPES[2:]], [1, 2, 1, 1, 1]),
    ],
)
def test_find_grid_refuses_wrong_shapes(shapes, anchors):
    assert ops.find_grid(make_priors(), shapes, anchors) is None


def test_find_grid_takes_half_priors_that_are_exact():
    priors = make_priors().half()
    case = replace(random_case((8,)).to(torch.half), grid=ops.find_grid(priors, SHAPES, [1] * 5))
    assert_routes_agree(case)


class MovedAnchors(AnchorGenerator):
    """Anchors of which one stands a pixel beside its cell."""

    def grid_priors(self, *args, **kwargs):
        levels = super().grid_priors(*args, **kwargs)
        levels[0][3] += 1
        return levels


def head_with(generator) -> torch.nn.Module:
    config = {
        'type': 'atss_ext.ATSSHead',
        'num_classes': 7,
        'in_channels': 8,
        'feat_channels': 8,
        'stacked_convs': 1,
        'norm_cfg': None,
        'loss_bbox': {'type': 'GIoULoss'},
        'anchor_generator': {
            'type': 'AnchorGenerator',
            'scales': [8],
            'ratios': [1.0],
            'strides': [8, 16, 32],
        },
        'train_cfg': {
            'assigner': {'type': 'atss_ext.ATSSAssigner'},
            'allowed_border': -1,
            'pos_weight': -1,
        },
    }
    head = MODELS.build(config)
    head.prior_generator = generator
    return head


def head_targets(head: torch.nn.Module, grid_expected: bool) -> ops.Targets:
    priors = head.pyramid_priors(((13, 19), (7, 10), (4, 5)), torch.device('cpu'))
    assert (priors.grid is not None) == grid_expected
    instances = [InstanceData(bboxes=random_boxes(n, n), labels=torch.arange(n) % 7) for n in (12, 0, 5)]
    return head.get_targets(priors, PackedGts.from_instances(instances))


def test_the_head_falls_back_where_priors_are_no_grid(monkeypatch):
    moved = MovedAnchors(strides=[8, 16, 32], ratios=[1.0], scales=[8])
    fallback = head_targets(head_with(moved), grid_expected=False)
    assert int(fallback.positive.sum()) > 20
    # The same priors by the reference, which knows no grid.
    monkeypatch.setattr(ops.native, 'DEVICES', frozenset())
    expected = head_targets(head_with(moved), grid_expected=False)
    assert torch.equal(fallback.labels, expected.labels)
    assert torch.equal(fallback.boxes, expected.boxes)


def test_the_head_uses_the_grid_and_targets_are_those_of_a_search(monkeypatch):
    generator = AnchorGenerator(strides=[8, 16, 32], ratios=[1.0], scales=[8])
    by_grid = head_targets(head_with(generator), grid_expected=True)
    monkeypatch.setattr('atss_ext.models.dense_heads.pyramid_priors.find_grid', lambda *args: None)
    by_search = head_targets(head_with(generator), grid_expected=False)
    assert_identical(by_grid, by_search)


def test_the_head_really_takes_the_grid_route(monkeypatch):
    """Its call carries the levels: told of a wrong stride, its targets change."""
    generator = AnchorGenerator(strides=[8, 16, 32], ratios=[1.0], scales=[8])
    head = head_with(generator)
    honest = head_targets(head, grid_expected=True)
    key, priors = next(iter(head._priors.items()))
    wrong = tuple(level._replace(offset=(1000.0, 1000.0)) for level in priors.grid)
    head._priors[key] = replace(priors, grid=wrong)
    assert not torch.equal(head_targets(head, grid_expected=True).positive, honest.positive)


class OpCount(TorchDispatchMode):
    """Writes down every op that is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_head_makes_targets_in_two_ops():
    """Whatever the number of images, gts and levels."""
    head = head_with(AnchorGenerator(strides=[8, 16, 32], ratios=[1.0], scales=[8]))
    priors = head.pyramid_priors(((13, 19), (7, 10), (4, 5)), torch.device('cpu'))
    instances = [InstanceData(bboxes=random_boxes(n, n), labels=torch.arange(n) % 7) for n in (12, 0, 5)]
    gts = PackedGts.from_instances(instances)
    with OpCount() as count:
        head.get_targets(priors, gts)
    assert count.names == ['atss_ext.atss_assign.default', 'atss_ext.gather_targets.default']


CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PYRAMID = (8, 16, 32, 64, 128)


def anchor_settings(node) -> list[dict]:
    """Every ``anchor_generator`` in a config."""
    if isinstance(node, list | tuple):
        return [found for item in node for found in anchor_settings(item)]
    if not isinstance(node, dict):
        return []
    own = [dict(node['anchor_generator'])] if 'anchor_generator' in node else []
    return own + [found for item in node.values() for found in anchor_settings(item)]


@functools.cache
def configured_anchors() -> list[tuple[str, dict]]:
    """(configs, anchor settings): with the configs' own strides and those of the paper, each setting once.

    Reading every config takes long: only the process that needs them does it, not all that collect tests.
    """
    found: dict[str, tuple[list[str], dict]] = {}
    for path in sorted(CONFIGS.rglob('*.py')):
        for anchors in anchor_settings(Config.fromfile(path)._cfg_dict.to_dict()):
            for strides in dict.fromkeys([tuple(anchors['strides']), PYRAMID]):
                own = {**anchors, 'strides': list(strides)}
                names, _ = found.setdefault(repr(sorted(own.items())), ([], own))
                names.append(path.relative_to(CONFIGS).as_posix())
    return [(' '.join(dict.fromkeys(names)), own) for names, own in found.values()]


@pytest.mark.parametrize('image', [(800, 1344), (333, 517)])
def test_anchors_of_every_config(image):
    """They stand on grids, and both routes give the same."""
    boxes = mixed_gts(*image)
    for names, anchors in configured_anchors():
        generator = TASK_UTILS.build(dict(anchors))
        for k in (9, 9 * generator.num_base_priors[0]):
            try:
                result = assert_routes_agree(grid_case(generator, *image, boxes, k=k))
                assert int(result.num_positives.sum()) > 0
            except AssertionError as error:
                raise AssertionError(f'anchors {anchors} of {names}, k = {k}') from error


def test_every_config_with_a_head_was_read():
    names = {name for names, _ in configured_anchors() for name in names.split()}
    trained = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob('atss/*.py')}
    assert trained
    assert trained <= names


def test_find_grid_works_on_the_host():
    """Whatever device tensors are made on by default."""
    priors = make_priors()
    expected = ops.find_grid(priors, SHAPES, [1] * 5)
    with torch.device('meta'):
        assert ops.find_grid(priors, SHAPES, [1] * 5) == expected


def test_find_grid_measures_a_copy_of_priors_that_are_elsewhere():
    """Stands in for a device: anything but the copy to the host would fail."""
    priors = make_priors()
    elsewhere = SimpleNamespace(size=priors.size, cpu=lambda: priors)
    assert ops.find_grid(elsewhere, SHAPES, [1] * 5) == ops.find_grid(priors, SHAPES, [1] * 5)


def test_ties_on_the_grid():
    case = replace(random_case((0,)), boxes=tied_boxes(), offsets=offsets_of([7]))
    for k in range(1, 40):
        assert_routes_agree(replace(case, k=k))
