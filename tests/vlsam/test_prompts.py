"""Points from planted maps, and connected areas against scipy's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from atss_ext.vlsam.prompts import (
    NO_POINT,
    PromptOptions,
    attention_contrast,
    label_components,
    largest_component,
    sample_points,
    suppress_sinks,
)
from atss_ext.vlsam.protocols import VlsamError

EVERYWHERE = torch.ones(4, 5, dtype=torch.bool)


def planted() -> torch.Tensor:
    """4 x 5: a strong single cell at the right, a weaker area of three at the left, peak at (1, 1)."""
    return torch.tensor(
        [
            [0.20, 0.20, 0.20, 0.20, 0.20],
            [0.80, 0.90, 0.20, 0.20, 1.00],
            [0.70, 0.20, 0.20, 0.10, 0.20],
            [0.20, 0.20, 0.20, 0.20, 0.20],
        ]
    )


def test_the_papers_pair():
    prompts = sample_points(planted()[None])
    # The largest area wins over the highest cell; the lowest cell is row 2, column 3.
    expected = torch.tensor([[[1.5 / 5, 1.5 / 4], [3.5 / 5, 2.5 / 4]]])
    torch.testing.assert_close(prompts.points, expected)
    assert prompts.labels.tolist() == [[1, 0]]
    assert prompts.labels.dtype == torch.int64
    assert prompts.areas[0].nonzero().tolist() == [[1, 0], [1, 1], [2, 0]]
    assert prompts.valid.tolist() == [True]
    torch.testing.assert_close(prompts.maps[0], (planted() - 0.1) / 0.9)
    inside, outside = (0.8 + 0.9 + 0.7 - 0.3) / 0.9 / 3, (15 * 0.1 + 0.9 + 0) / 0.9 / 17
    assert float(prompts.contrast) == pytest.approx(inside - outside, abs=1e-6)


@pytest.mark.parametrize(
    ('settings', 'area', 'peak'),
    [
        ({'threshold': 0.76}, [[1, 0], [1, 1]], [1, 1]),
        ({'threshold': 0.8}, [[1, 4]], [1, 4]),  # two single cells: the higher one
        ({'threshold': 1.0}, [[1, 4]], [1, 4]),
        ({'threshold': 0.5, 'connectivity': 4}, [[1, 0], [1, 1], [2, 0]], [1, 1]),
    ],
)
def test_threshold(settings, area, peak):
    prompts = sample_points(planted()[None], PromptOptions(**settings))
    assert prompts.areas[0].nonzero().tolist() == area
    assert prompts.points[0, 0].tolist() == pytest.approx([(peak[1] + 0.5) / 5, (peak[0] + 0.5) / 4])


def test_the_threshold_itself_belongs_to_the_area():
    maps = torch.tensor([[[0.0, 0.25, 0.5, 1.0]]])
    assert sample_points(maps, PromptOptions(threshold=0.5)).areas.tolist() == [[[False, False, True, True]]]


def test_connectivity():
    maps = torch.eye(4)[None].repeat(2, 1, 1)
    maps[1] += torch.diag(torch.ones(3), 1)  # a staircase
    eight = sample_points(maps).areas.flatten(1).sum(1)
    four = sample_points(maps, PromptOptions(connectivity=4)).areas
    assert eight.tolist() == [4, 7]
    # All cells are equally high alone: the first.
    assert four[0].nonzero().tolist() == [[0, 0]]
    assert int(four[1].sum()) == 7


def test_ties_go_to_the_lower_index():
    maps = torch.zeros(1, 3, 4)
    maps[0, 0, 2] = maps[0, 2, 1] = 1  # two areas of one cell and one height
    prompts = sample_points(maps)
    assert cells(prompts, 3, 4) == [(0, 2, 1), (0, 0, 0)]
    assert prompts.areas[0].nonzero().tolist() == [[0, 2]]


def cells(prompts, rows: int, columns: int) -> list[tuple[int, int, int]]:
    """(row, column, label) of the points of the first object."""
    places = (prompts.points[0] * torch.tensor([columns, rows])).long().tolist()
    return [(y, x, label) for (x, y), label in zip(places, prompts.labels[0].tolist(), strict=True)]


def test_several_points_keep_their_distance():
    maps = torch.zeros(1, 5, 8)
    maps[0, 2, 1:7] = torch.tensor([0.6, 0.95, 1.0, 0.9, 0.8, 0.7])
    maps[0, 0] = 0.2
    options = PromptOptions(positives=4, negatives=3, min_distance=2)
    assert cells(sample_points(maps, options), 5, 8) == [
        (2, 3, 1),
        (2, 5, 1),
        (2, 1, 1),
        (0, 0, NO_POINT),  # the area has no fourth place two cells from all others
        (1, 0, 0),
        (1, 2, 0),
        (1, 4, 0),
    ]
    near = PromptOptions(positives=3, negatives=0, min_distance=0)
    assert cells(sample_points(maps, near), 5, 8) == [(2, 3, 1), (2, 2, 1), (2, 4, 1)]
    far = PromptOptions(positives=2, negatives=0, min_distance=2.5)
    assert cells(sample_points(maps, far), 5, 8) == [(2, 3, 1), (2, 6, 1)]


def test_a_single_cell():
    prompts = sample_points(torch.tensor([[[0.3]], [[0.0]]]))
    assert prompts.valid.tolist() == [True, False]
    assert prompts.points.tolist() == [[[0.5, 0.5], [0, 0]], [[0, 0], [0, 0]]]
    assert prompts.labels.tolist() == [[1, NO_POINT], [NO_POINT, NO_POINT]]
    assert prompts.contrast.tolist() == [1, 0]


BROKEN = {
    'zero': torch.zeros(4, 5),
    'constant': torch.full((4, 5), 0.05),
    'constant but for rounding': torch.full((4, 5), 0.05) * (1 + 1e-7 * torch.arange(20.0).view(4, 5)),
    'NaN': torch.full((4, 5), math.nan),
    'one NaN': planted().index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(math.nan)),
    'infinite': planted().index_put((torch.tensor(3), torch.tensor(1)), torch.tensor(math.inf)),
}


@pytest.mark.parametrize('name', BROKEN)
@pytest.mark.parametrize('sinks', ['off', 'median'])
@pytest.mark.parametrize('smoothing', [0.0, 1.0])
def test_maps_that_tell_nothing_get_no_prompt(name, sinks, smoothing):
    options = PromptOptions(sinks=sinks, smoothing=smoothing)
    both = sample_points(torch.stack([planted(), BROKEN[name], planted().flip(1)]), options)
    assert both.valid.tolist() == [True, False, True]
    assert both.labels[1].tolist() == [NO_POINT, NO_POINT]
    assert not both.areas[1].any()
    assert float(both.contrast[1]) == 0
    assert all(bool(part.isfinite().all()) for part in both)
    # And it does nothing to the others.
    alone = sample_points(torch.stack([planted(), planted().flip(1)]), options)
    for ours, theirs in zip(both, alone, strict=True):
        assert torch.equal(ours[::2], theirs)


def test_cells_without_a_token_do_not_count():
    maps = planted()[None].clone()
    present = EVERYWHERE.clone()
    present[:, 4] = False
    present[0] = False
    present[2, 3] = False
    reference = sample_points(maps[:, 1:, :4], present=present[1:, :4])
    maps[0, :, 4] = math.nan
    maps[0, 0] = 50
    maps[0, 2, 3] = -50
    prompts = sample_points(maps, PromptOptions(), present)
    assert torch.equal(prompts.areas[:, 1:, :4], reference.areas)
    assert int(prompts.areas.sum()) == int(reference.areas.sum()) == 3
    torch.testing.assert_close(prompts.contrast, reference.contrast)
    assert cells(prompts, 4, 5) == [(1, 1, 1), (1, 2, 0)]
    assert not sample_points(maps, PromptOptions(), torch.zeros(4, 5, dtype=torch.bool)).valid.any()


def test_no_objects_and_no_cells():
    prompts = sample_points(torch.zeros(0, 4, 5), PromptOptions(positives=2, smoothing=1, sinks='median'))
    assert [tuple(part.shape) for part in prompts] == [(0, 3, 2), (0, 3), (0, 4, 5), (0,), (0,), (0, 4, 5)]
    for shape in ((2, 0, 5), (2, 5, 0), (4, 5)):
        with pytest.raises(VlsamError, match='one cell or more'):
            sample_points(torch.zeros(shape))


@pytest.mark.parametrize('scale', [1e-20, 1e20])
def test_the_unit_of_attention_does_not_matter(scale):
    ours, expected = sample_points(planted()[None] * scale), sample_points(planted()[None])
    assert torch.equal(ours.labels, expected.labels)
    assert torch.equal(ours.points, expected.points)
    torch.testing.assert_close(ours.contrast, expected.contrast)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    prompts = sample_points(planted()[None].to(dtype))
    assert torch.equal(prompts.points, sample_points(planted()[None]).points)
    assert prompts.points.dtype == prompts.contrast.dtype == torch.float32


def test_objects_do_not_depend_on_each_other():
    maps = torch.rand(7, 6, 9)
    together = sample_points(maps)
    for index in range(7):
        alone = sample_points(maps[index : index + 1])
        assert all(torch.equal(a[0], b[index]) for a, b in zip(alone, together, strict=True))


def test_contrast_tells_a_spot_from_haze():
    area = torch.zeros(2, 4, 5, dtype=torch.bool)
    area[:, 1, 1] = True
    spot = area[0].float()
    haze = torch.full((4, 5), 0.9)
    haze[1, 1] = 1
    assert attention_contrast(torch.stack([spot, haze]), area, EVERYWHERE).tolist() == pytest.approx([1, 0.1])
    none = torch.zeros_like(area)
    assert attention_contrast(torch.stack([spot, haze]), none, EVERYWHERE).tolist() == [0, 0]
    # The largest area may be lower than what is left: 0, not less.
    low = torch.tensor([[[0.5, 0.5, 0.0, 1.0, 1.0]]])
    assert attention_contrast(low, low == 0.5, torch.ones(1, 5, dtype=torch.bool)).tolist() == [0]


def blob(rows: int, columns: int, y: float, x: float) -> torch.Tensor:
    """Attention around a place, as shares of one."""
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij')
    values = torch.exp(-((down - y) ** 2 + (across - x) ** 2) / 3) + 0.01
    return values / values.sum()


def test_sinks():
    """A cell that draws attention whatever the object is; the maximum of every map before, of none after."""
    maps = torch.stack([blob(12, 12, 3, 3), blob(12, 12, 8, 9), blob(12, 12, 9, 2)])
    clean = sample_points(maps)
    with_sink = maps.clone()
    with_sink[:, 0, 11] = 0.4
    assert (
        sample_points(with_sink).points[:, 0].tolist()
        == [[pytest.approx(11.5 / 12), pytest.approx(0.5 / 12)]] * 3
    )
    mended = sample_points(with_sink, PromptOptions(sinks='median'))
    assert torch.equal(mended.points[:, 0], clean.points[:, 0])
    values = suppress_sinks(with_sink, torch.ones(12, 12, dtype=torch.bool), 10)
    changed = (values != with_sink).any(0).nonzero().tolist()
    assert changed == [[0, 11]]
    # The (lower) median of its three neighbours.
    neighbours = torch.stack([maps[:, 0, 10], maps[:, 1, 10], maps[:, 1, 11]], 1)
    assert torch.equal(values[:, 0, 11], neighbours.sort(1).values[:, 1])


def test_sharp_objects_are_no_sinks():
    """In the mean of two maps each peak is an outlier; in every map none is."""
    sharp = torch.full((2, 8, 8), 0.001)
    sharp[0, 2, 2] = sharp[1, 5, 6] = 1
    everywhere = torch.ones(8, 8, dtype=torch.bool)
    assert float(sharp.mean(0).max()) > 10 * float(sharp.mean(0).median())
    assert torch.equal(suppress_sinks(sharp, everywhere, 10), sharp)
    # One map alone cannot tell.
    assert torch.equal(suppress_sinks(sharp[:1], everywhere, 10), sharp[:1])
    # A map that tells nothing has no say.
    silent = torch.cat([sharp[:1], torch.zeros(1, 8, 8)])
    assert torch.equal(suppress_sinks(silent, everywhere, 10), silent)


def test_sinks_among_sinks_and_missing_cells():
    maps = torch.full((2, 3, 3), 0.1)
    maps[:, :2, :2] = 5
    maps[0, 2, 0] = 0.2
    present = torch.ones(3, 3, dtype=torch.bool)
    present[0, 2] = present[1, 2] = False
    maps[:, 0, 2] = maps[:, 1, 2] = math.nan
    values = suppress_sinks(torch.where(present, maps, 0), present, 10)
    # Median of the map: of 5, 5, 5, 5, .2, .1, .1 it is 5, so nothing reaches ten times as much.
    assert torch.equal(values, torch.where(present, maps, 0))
    wide = torch.full((2, 5, 5), 0.1)
    wide[:, :3, :3] = 5
    mended = suppress_sinks(wide, torch.ones(5, 5, dtype=torch.bool), 10)
    # (0, 0) has none but sinks around: the map's median.
    assert torch.equal(mended, torch.full((2, 5, 5), 0.1))


def test_smoothing_is_scipys_gaussian_inside():
    maps = torch.rand(2, 21, 23)
    spread = sample_points(maps, PromptOptions(smoothing=1.0)).maps
    expected = np.stack(
        [ndimage.gaussian_filter(m.numpy().astype(float), 1.0, truncate=3, mode='constant') for m in maps]
    )
    weight = ndimage.gaussian_filter(np.ones((21, 23)), 1.0, truncate=3, mode='constant')
    expected = expected / weight
    low, high = expected.min((1, 2), keepdims=True), expected.max((1, 2), keepdims=True)
    torch.testing.assert_close(
        spread.double(), torch.from_numpy((expected - low) / (high - low)), atol=1e-5, rtol=0
    )


def test_smoothing_moves_the_point_from_a_speckle_to_a_blob():
    maps = blob(12, 12, 6, 4)[None] * 10
    maps[0, 0, 11] = 2 * maps.max()
    raw = PromptOptions(threshold=0.9)
    assert cells(sample_points(maps, raw), 12, 12)[0] == (0, 11, 1)
    assert cells(sample_points(maps, PromptOptions(threshold=0.9, smoothing=1.5)), 12, 12)[0] == (6, 4, 1)


def scipy_largest(mask: np.ndarray, values: np.ndarray, connectivity: int) -> np.ndarray:
    structure = np.ones((3, 3)) if connectivity == 8 else None
    labels, count = ndimage.label(mask, structure)
    areas = [labels == number for number in range(1, count + 1)]
    # Scipy numbers areas by their first cell.
    best = max(range(count), key=lambda i: (areas[i].sum(), values[areas[i]].max(), -i), default=None)
    return np.zeros_like(mask) if best is None else areas[best]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 4),
    st.floats(0, 1),
    st.sampled_from([4, 8]),
    st.integers(0, 2**31),
)
def test_components_against_scipy(rows, columns, objects, share, connectivity, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((objects, rows, columns)) < share
    values = rng.integers(0, 4, masks.shape) / 4  # ties are frequent
    found = largest_component(torch.from_numpy(masks), torch.from_numpy(values).float(), connectivity)
    labels = label_components(torch.from_numpy(masks), connectivity).numpy()
    for index in range(objects):
        expected = scipy_largest(masks[index], values[index], connectivity)
        assert np.array_equal(found[index].numpy(), expected)
        theirs = ndimage.label(masks[index], np.ones((3, 3)) if connectivity == 8 else None)[0]
        pairs = {pair for pair in zip(labels[index].ravel().tolist(), theirs.ravel().tolist(), strict=True)}
        assert len(pairs) == len({ours for ours, _ in pairs}) == len({other for _, other in pairs})
        assert all((ours == -1) == (other == 0) for ours, other in pairs)


def spiral(side: int) -> np.ndarray:
    """One path of a cell's width that winds inward."""
    mask = np.zeros((side, side), bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True
    for _ in range(side * side):
        ahead, next_but_one = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
        inside = all(0 <= c < side for c in ahead)
        if not inside or (all(0 <= c < side for c in next_but_one) and mask[next_but_one]):
            dy, dx = dx, -dy
            if mask[min(y + 2 * dy, side - 1), min(x + 2 * dx, side - 1)]:
                break
            continue
        y, x = ahead
        mask[y, x] = True
    return mask


def test_long_winding_areas_are_one():
    mask = torch.from_numpy(spiral(41))
    assert ndimage.label(mask.numpy())[1] == 1
    assert int(mask.sum()) > 600
    assert torch.equal(largest_component(mask[None], mask[None].float(), 4)[0], mask)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'threshold': 0}, 'threshold'),
        ({'threshold': 1.5}, '1.5'),
        ({'threshold': math.nan}, 'threshold'),
        ({'positives': 0}, 'positives'),
        ({'negatives': -1}, 'negatives'),
        ({'min_distance': -1}, 'min_distance'),
        ({'connectivity': 6}, 'connectivity'),
        ({'smoothing': math.inf}, 'smoothing'),
        ({'sinks': 'mean'}, "'mean'"),
        ({'sink_ratio': 1}, 'sink_ratio'),
        ({'contrast': 'max'}, "'max'"),
        ({'position': 'centre'}, "'centre'"),
    ],
)
def test_options_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        PromptOptions(**settings)
