"""Maps over the image from the tokens of grids, against painting token by token."""

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from atss_ext.vlsam.attention import grid_map
from atss_ext.vlsam.protocols import TokenGrid, VlsamError

WHOLE = (0.0, 0.0, 1.0, 1.0)
FINE = 240
MISMATCH = 'but the sequence has 170 (0 to 169, -1 for none): the image tokens do not match the sequence.'


def grid(first: int, rows: int, columns: int, box: Sequence[float] = WHOLE) -> TokenGrid:
    """Tokens row by row from a place in the sequence on."""
    return TokenGrid(torch.arange(first, first + rows * columns).view(rows, columns), tuple(box))


def painted(row: Tensor, grids: Sequence[TokenGrid], size: tuple[int, int]) -> Tensor:
    """Every token's weight, pixel by pixel of a raster so fine that no edge cuts a pixel; float64 [R, C]."""
    raster = torch.zeros(FINE, FINE, dtype=torch.float64)
    for positions, box in grids:
        x1, y1, x2, y2 = (Fraction(edge).limit_denominator(1000) for edge in box)
        height, width = (y2 - y1) / positions.size(0), (x2 - x1) / positions.size(1)
        for r in range(positions.size(0)):
            for c in range(positions.size(1)):
                place = int(positions[r, c])
                if place < 0:
                    continue
                edges = [x1 + c * width, y1 + r * height, x1 + (c + 1) * width, y1 + (r + 1) * height]
                left, top, right, bottom = (edge * FINE for edge in edges)
                assert all(edge.denominator == 1 for edge in (left, top, right, bottom))
                share = float(row[place]) / float((right - left) * (bottom - top))
                raster[max(int(top), 0) : max(int(bottom), 0), max(int(left), 0) : max(int(right), 0)] += (
                    share
                )
    rows, columns = size
    return raster.view(rows, FINE // rows, columns, FINE // columns).sum((1, 3))


def assert_painted(
    rows: Tensor, grids: Sequence[TokenGrid], size: tuple[int, int], ask: bool = False
) -> None:
    maps = grid_map(rows, grids, size=size if ask else None)
    assert (maps.dtype, maps.shape) == (torch.float32, (len(rows), *size))
    expected = torch.stack([painted(row, grids, size) for row in rows]).float()
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-7)


def tiled() -> list[TokenGrid]:
    """Two rows of three tiles of 4 x 5 tokens, then the whole image in 4 x 5."""
    tiles = [
        grid(10 + 20 * (3 * r + c), 4, 5, (c / 3, r / 2, (c + 1) / 3, (r + 1) / 2))
        for r in range(2)
        for c in range(3)
    ]
    return [*tiles, grid(140, 4, 5)]


ROWS = torch.rand(3, 170, generator=torch.Generator().manual_seed(1))


def test_one_grid_is_gathered():
    positions = torch.tensor([[3, 0, -1], [7, 9, 4]])
    row = torch.arange(10.0)[None] / 4
    maps = grid_map(row, [TokenGrid(positions)])
    assert maps.tolist() == [[[0.75, 0, 0], [1.75, 2.25, 1]]]
    assert torch.equal(grid_map(row.double(), [TokenGrid(positions)], size=(2, 3)), maps)
    for which in ('global', 'tiles'):
        assert torch.equal(grid_map(row, [TokenGrid(positions)], which), maps)


def test_one_grid_on_another_canvas():
    assert_painted(ROWS, [grid(5, 4, 6)], (8, 3), ask=True)


def test_tiles_and_the_whole():
    assert_painted(ROWS, tiled(), (8, 15))


def test_which_grids():
    grids = tiled()
    assert torch.equal(grid_map(ROWS, grids, 'global'), ROWS[:, 140:160].view(3, 4, 5))
    tiles = grid_map(ROWS, grids, 'tiles')
    torch.testing.assert_close(tiles, grid_map(ROWS, grids[:-1]))
    both = grid_map(ROWS, grids, size=(8, 15))
    torch.testing.assert_close(both, tiles + grid_map(ROWS, grids, 'global', size=(8, 15)))
    # Tiles beside each other are their tokens beside each other.
    beside = torch.cat([torch.cat([ROWS[:, g.positions] for g in grids[r : r + 3]], 2) for r in (0, 3)], 1)
    torch.testing.assert_close(tiles, beside)


def test_of_several_whole_grids_the_coarsest_is_global():
    """LLaVA-Next: the tiles' tokens form one grid over the whole image."""
    grids = [grid(100, 6, 8), grid(0, 3, 4)]
    assert torch.equal(grid_map(ROWS, grids, 'global'), ROWS[:, :12].view(3, 3, 4))
    assert torch.equal(grid_map(ROWS, grids, 'tiles'), ROWS[:, 100:148].view(3, 6, 8))


def test_the_order_of_grids_does_not_matter():
    grids = tiled()
    torch.testing.assert_close(grid_map(ROWS, grids[::-1]), grid_map(ROWS, grids))


@pytest.mark.parametrize(
    ('box', 'size'),
    [
        ((0, -0.25, 1, 1.25), (4, 6)),  # a square canvas around a wide image: 2 of 6 rows are border
        ((-0.5, 0, 1.5, 1), (6, 3)),
        ((0.25, 0, 0.75, 1), (6, 12)),  # a centre crop
        ((0.1, -0.2, 0.7, 0.4), (10, 10)),
    ],
)
def test_what_lies_outside_is_cut(box, size):
    assert_painted(ROWS, [grid(20, 6, 6, box)], size)


def test_a_grid_outside_of_the_image_adds_nothing():
    outside = grid(20, 2, 2, (1.0, 0, 1.5, 1))
    torch.testing.assert_close(
        grid_map(ROWS, [grid(5, 4, 6), outside], size=(4, 6)), grid_map(ROWS, [grid(5, 4, 6)])
    )


def test_the_sum_is_the_weight_in_the_image():
    inside, border = grid(20, 3, 7, (0.13, 0.4, 0.77, 0.9)), grid(60, 4, 3, (0, -0.5, 1, 0.5))
    maps = grid_map(ROWS, [inside, border])
    weight = ROWS[:, 20:41].sum(1) + ROWS[:, 66:72].sum(1)
    torch.testing.assert_close(maps.sum((1, 2)), weight)


def test_places_without_a_token_carry_nothing():
    grids = tiled()
    grids[2].positions[1:, 3:] = -1
    assert_painted(ROWS, grids, (8, 15))
    empty = TokenGrid(torch.full((4, 6), -1))
    assert (grid_map(ROWS, [empty]) == 0).all()
    assert (grid_map(ROWS, [grid(0, 2, 2)._replace(positions=empty.positions[:0]), *grids]) > 0).any()


def test_a_narrow_window_makes_no_endless_map():
    window = grid(0, 24, 4, (0.4999, 0, 0.5001, 1))
    maps = grid_map(ROWS, [window])
    assert maps.shape == (3, 24, 512)
    torch.testing.assert_close(maps.sum((1, 2)), ROWS[:, :96].sum(1))
    assert (maps[..., :255] == 0).all()


def test_half_precision_rows_are_summed_in_float32():
    grids, half = tiled(), ROWS.bfloat16()
    maps = grid_map(half.float(), grids)
    assert torch.equal(grid_map(half, grids), maps)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(grid_map(half, grids), maps)


def test_no_objects_and_no_gradients():
    assert grid_map(ROWS[:0], tiled()).shape == (0, 8, 15)
    assert not grid_map(ROWS.clone().requires_grad_(), tiled()).requires_grad


@pytest.mark.parametrize(
    ('grids', 'options', 'sentence'),
    [
        ([], {}, 'There is no grid that holds an image token; a map needs at least one.'),
        (
            [TokenGrid(torch.zeros(0, 4, dtype=torch.long))],
            {},
            'There is no grid that holds an image token; a map needs at least one.',
        ),
        (
            [grid(165, 2, 3)],
            {},
            f'A grid names token 170 {MISMATCH}',
        ),
        (
            [TokenGrid(torch.tensor([[0, -2]]))],
            {},
            f'A grid names token -2 {MISMATCH}',
        ),
        ([TokenGrid(torch.arange(4))], {}, 'A grid of tokens must be [R, C] but is [4].'),
        (
            [grid(0, 2, 2, (0.5, 0, 0.5, 1))],
            {},
            'A grid covers no area: its box is (0.5, 0, 0.5, 1); it must have x1 < x2 and y1 < y2.',
        ),
        (
            [grid(0, 2, 2, (0, 0, math.nan, 1))],
            {},
            'A grid covers no area: its box is (0, 0, nan, 1); it must have x1 < x2 and y1 < y2.',
        ),
        ([grid(0, 2, 2)], {'which': 'best'}, "which must be 'all', 'global' or 'tiles', but is 'best'."),
        (
            tiled()[:-1],
            {'which': 'global'},
            "None of the 6 grids shows the whole image; use which='all'.",
        ),
        ([grid(0, 2, 2)], {'size': (0, 4)}, 'size must be two positive numbers (R, C), but is (0, 4).'),
    ],
)
def test_refuses(grids, options, sentence):
    with pytest.raises(VlsamError) as caught:
        grid_map(ROWS, grids, **options)
    assert str(caught.value) == sentence


def test_refuses_a_single_row():
    with pytest.raises(VlsamError, match=r'^row must be \[O, N\], a row an object, but is \[170\]\.$'):
        grid_map(ROWS[0], [grid(0, 2, 2)])
