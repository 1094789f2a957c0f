"""Iterative refinement on scenes whose every point and mask is known."""

import math

import numpy as np
import pytest
import torch
from rule_segmenter import RuleSegmenter
from tiny_sams import tiny_sam

from atss_ext.vlsam.protocols import Embedding, Segmentation
from atss_ext.vlsam.refine import area_average, mask_cells, refine
from atss_ext.vlsam.segmenter import TransformersSegmenter, masks

CELL = 4  # pixels a cell of the maps below


def extremes(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The centres of a map's highest and lowest cell (the first of equals) as positive and negative point."""
    cells = torch.stack([maps.flatten(1).argmax(1), maps.flatten(1).argmin(1)], 1)
    rows, columns = cells // maps.shape[2], cells % maps.shape[2]
    points = (torch.stack([columns, rows], -1) + 0.5) * CELL
    return points, torch.tensor([[1, 0]]).repeat(len(maps), 1)


def scene() -> np.ndarray:
    """A green body, 8 x 8 pixels, with a handle one pixel high to its left, on black; 16 x 24 in all."""
    image = np.zeros((16, 24, 3), np.uint8)
    image[4:12, 8:16] = image[6, 4:8] = (0, 200, 0)
    return image


def body() -> torch.Tensor:
    mask = torch.zeros(16, 24, dtype=torch.bool)
    mask[4:12, 8:16] = mask[6, 4:8] = True
    return mask


# 4 x 6 cells over the scene. The body fills rows 1 and 2, columns 2 and 3; the handle passes column 1 of row
# 1 through its centre, and covers a quarter of that cell.
MISLEADING_NEGATIVE = torch.tensor(
    [
        [0.2, 0.2, 0.2, 0.2, 0.2, 0.6],
        [0.2, 0.3, 0.9, 0.5, 0.2, 0.2],
        [0.2, 0.2, 0.7, 0.1, 0.2, 0.2],  # the lowest cell of all lies in the body
        [0.2, 0.2, 0.2, 0.2, 0.2, 0.2],
    ]
)
POSITIVE_ON_THE_RIM = torch.tensor(
    [
        [0.1, 0.2, 0.2, 0.2, 0.2, 0.2],
        [0.2, 1.0, 0.4, 0.5, 0.2, 0.2],  # the highest cell of all shows little of the object
        [0.2, 0.2, 0.7, 0.9, 0.2, 0.2],
        [0.2, 0.2, 0.2, 0.2, 0.2, 0.2],
    ]
)


def run(segmenter, image: np.ndarray, maps: torch.Tensor, sample=extremes, **options) -> list[Segmentation]:
    points, labels = sample(maps)
    return refine(segmenter, segmenter.embed(image), points, labels, maps, sample, **options)


def test_a_misleading_negative_point_leaves_the_object():
    """It lay in the mask; outside of the mask the map is 0 now, and that is where it goes."""
    segmenter = RuleSegmenter()
    first, fed_back, resampled = run(segmenter, scene(), MISLEADING_NEGATIVE[None])
    assert [call['points'].tolist() for call in segmenter.calls] == [
        [[[10.0, 6.0], [14.0, 10.0]]],
        [[[10.0, 6.0], [14.0, 10.0]]],
        [[[10.0, 6.0], [2.0, 2.0]]],
    ]
    assert [stage.ious.tolist() for stage in (first, fed_back, resampled)] == [[0.5], [0.5], [1.0]]
    for stage in (first, fed_back, resampled):
        assert torch.equal(stage.masks[0], body())


def test_a_positive_point_on_the_rim_moves_into_the_object():
    segmenter = RuleSegmenter()
    run(segmenter, scene(), POSITIVE_ON_THE_RIM[None], feedback=0)
    assert [call['points'].tolist() for call in segmenter.calls] == [
        [[[6.0, 6.0], [2.0, 2.0]]],
        [[[14.0, 10.0], [2.0, 2.0]]],
    ]


class Script:
    """The n-th call finds the first n columns, and says n with its IoUs and mask logits."""

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def embed(self, image: np.ndarray) -> Embedding:
        return Embedding(image.shape[:2], 'features')

    def segment(
        self, embedding, points, labels, mask_logits=None, boxes=None, multimask=True
    ) -> Segmentation:
        assert embedding.features == 'features'
        self.calls.append(
            {'points': points, 'labels': labels, 'mask_logits': mask_logits, 'multimask': multimask}
        )
        number, count = len(self.calls), len(points)
        found = torch.zeros(count, *embedding.size, dtype=torch.bool)
        found[..., : number * CELL] = True
        return Segmentation(
            found, torch.full((count,), number / 10), torch.full((count, 2, 2), float(number))
        )


def test_stages_and_what_they_are_given():
    """First, twice fed back, twice resampled: each from the one before, and the map masked anew each time."""
    seen = []

    def sample(maps):
        seen.append(maps)
        return extremes(maps)

    script, maps = Script(), torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) + 0.1
    stages = run(script, scene(), maps, sample, feedback=2, resample=2, multimask=False)
    assert [stage.ious.tolist() for stage in stages] == [
        [n] * 3 for n in np.float32([0.1, 0.2, 0.3, 0.4, 0.5])
    ]
    prompts = [call['mask_logits'] for call in script.calls]
    assert [p is None or p.unique().tolist() for p in prompts] == [True, [1.0], [2.0], True, True]
    assert not any(call['multimask'] for call in script.calls)
    for given, columns in zip(seen, (6, 3, 4), strict=True):
        expected = maps.clone()
        expected[..., columns:] = 0
        assert torch.equal(given, expected)
    for call, number in zip(script.calls, (0, 0, 0, 1, 2), strict=True):
        assert torch.equal(call['points'], extremes(seen[number])[0])


def test_steps_can_be_left_out():
    for feedback, resample in ((0, 0), (1, 0), (0, 1), (3, 2)):
        script = Script()
        stages = run(script, scene(), torch.ones(2, 4, 6), feedback=feedback, resample=resample)
        assert len(stages) == len(script.calls) == 1 + feedback + resample


def test_only_the_last_stage():
    every = run(Script(), scene(), torch.ones(2, 4, 6), feedback=2)
    (last,) = run(Script(), scene(), torch.ones(2, 4, 6), feedback=2, keep='last')
    assert all(torch.equal(a, b) for a, b in zip(last, every[-1], strict=True))


def test_objects_keep_their_mask_where_nothing_is_left_to_sample():
    """One has no attention within its mask, one no positive point; the other two go on by themselves."""
    maps = torch.ones(4, 4, 6) * 0.5
    maps[:, 0, 5] = 1.0
    maps[1, :, 0] = 0  # the script's first mask: column 0
    maps[3, 1, 0] = 0.9

    def sample(given):
        points, labels = extremes(given)
        labels[given[:, 0, 0] == 0.25] = -10
        return points, labels

    maps[2, :, 0] = 0.25
    script = Script()
    first, resampled = run(script, scene(), maps, sample, feedback=0)
    assert script.calls[1]['points'].tolist() == [[[2.0, 2.0], [6.0, 2.0]], [[2.0, 6.0], [6.0, 2.0]]]
    assert script.calls[1]['labels'].tolist() == [[1, 0], [1, 0]]
    assert resampled.ious.tolist() == np.float32([0.2, 0.1, 0.1, 0.2]).tolist()
    assert resampled.mask_logits.amax((1, 2)).tolist() == [2, 1, 1, 2]
    assert resampled.masks.any(1).sum(1).tolist() == [8, 4, 4, 8]
    # What was found before is a candidate of its own and stays.
    assert first.ious.tolist() == np.float32([0.1] * 4).tolist()
    assert first.masks.any(1).sum(1).tolist() == [4] * 4


@pytest.mark.parametrize('value', [0.0, math.nan])
def test_maps_without_attention(value):
    """No point is drawn; the segmenter is not asked again."""
    script = Script()
    points, labels = extremes(torch.ones(2, 4, 6))

    def never(maps):
        raise AssertionError('sampled')

    embedding = script.embed(scene())
    first, fed_back, resampled = refine(
        script, embedding, points, labels, torch.full((2, 4, 6), value), never
    )
    assert len(script.calls) == 2
    assert all(torch.equal(a, b) for a, b in zip(fed_back, resampled, strict=True))
    assert not torch.equal(first.ious, fed_back.ious)


def test_another_number_of_points():
    """What is sampled later may be more points than came first."""

    def three(maps):
        points, labels = extremes(maps)
        return torch.cat([points, points[:, :1]], 1), torch.cat([labels, labels[:, :1]], 1)

    segmenter, maps = RuleSegmenter(), MISLEADING_NEGATIVE[None]
    points, labels = extremes(maps)
    refine(segmenter, segmenter.embed(scene()), points, labels, maps, three)
    assert [call['points'].shape[1] for call in segmenter.calls] == [2, 2, 3]


def test_no_objects():
    segmenter = RuleSegmenter()

    def never(maps):
        raise AssertionError('sampled')

    stages = refine(
        segmenter,
        segmenter.embed(scene()),
        torch.zeros(0, 2, 2),
        torch.zeros(0, 2),
        torch.zeros(0, 4, 6),
        never,
    )
    assert [stage.masks.shape for stage in stages] == [(0, 16, 24)] * 3


def test_objects_are_independent():
    """Neither their order nor what else is there changes an object."""
    maps = torch.stack([MISLEADING_NEGATIVE, POSITIVE_ON_THE_RIM, MISLEADING_NEGATIVE.flip(0)])
    together = run(RuleSegmenter(), scene(), maps)
    order = torch.tensor([2, 0, 1])
    for stage, shuffled in zip(together, run(RuleSegmenter(), scene(), maps[order]), strict=True):
        assert all(torch.equal(a[order], b) for a, b in zip(stage, shuffled, strict=True))
    for number in range(3):
        alone = run(RuleSegmenter(), scene(), maps[number : number + 1])
        for stage, single in zip(together, alone, strict=True):
            assert all(torch.equal(a[number : number + 1], b) for a, b in zip(stage, single, strict=True))


@pytest.mark.parametrize('family', ['sam', 'sam2'])
def test_with_a_real_segmenter(family):
    """Stage by stage as one would call it by hand."""
    segmenter = TransformersSegmenter(*tiny_sam(family), dtype='float64')
    embedding = segmenter.embed(scene().repeat(4, 0).repeat(4, 1))
    maps = torch.stack([MISLEADING_NEGATIVE, POSITIVE_ON_THE_RIM])

    def sample(given):
        points, labels = extremes(given)
        return points * 4, labels

    points, labels = sample(maps)
    stages = refine(segmenter, embedding, points, labels, maps, sample)
    first = segmenter.segment(embedding, points, labels)
    fed_back = segmenter.segment(embedding, points, labels, first.mask_logits)
    again = sample(maps * mask_cells(fed_back.masks, (4, 6)))
    assert not torch.equal(again[0], points)
    resampled = segmenter.segment(embedding, *again)
    for found, expected in zip(stages, (first, fed_back, resampled), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


BAD_ARGUMENTS = {
    'feedback': ({'feedback': -1}, 'feedback is -1'),
    'resample': ({'resample': -2}, 'resample is -2'),
    'keep': ({'keep': 'best'}, "keep is 'best'; it takes 'all' or 'last'"),
    'maps': ({'maps': torch.ones(3, 4, 6)}, r'maps has the shape \[3, 4, 6\]; 2 objects need'),
    'a map': ({'maps': torch.ones(4, 6)}, r'maps has the shape \[4, 6\]'),
}


@pytest.mark.parametrize('name', BAD_ARGUMENTS)
def test_bad_arguments(name):
    options, message = BAD_ARGUMENTS[name]
    script = Script()
    arguments = {'maps': torch.ones(2, 4, 6), **options}
    points, labels = extremes(torch.ones(2, 4, 6))
    with pytest.raises(ValueError, match=message):
        refine(script, script.embed(scene()), points, labels, sample=extremes, **arguments)
    assert not script.calls


def cells_of(*parts: tuple[int, int, int, int], shape=(4, 6), without=()) -> list[str]:
    """The cells of a mask that fills rectangles (top, bottom, left, right), but not those ``without``."""
    mask = torch.zeros(1, 16, 24, dtype=torch.bool)
    for rectangles, value in ((parts, True), (without, False)):
        for top, bottom, left, right in rectangles:
            mask[0, top:bottom, left:right] = value
    return [''.join('.#'[int(v)] for v in row) for row in mask_cells(mask, shape)[0]]


def test_cells_covered_by_half():
    """Whole cells, halves of a column and of a row, and at a corner a quarter."""
    assert cells_of((4, 10, 6, 16)) == ['......', '.###..', '..##..', '......']


def test_cells_of_small_and_thin_masks():
    """A pixel keeps its cell, a pole all of its cells; beside a filled cell slivers do not count."""
    assert cells_of((9, 10, 13, 14)) == ['......', '......', '...#..', '......']
    assert cells_of((0, 16, 5, 6)) == ['.#....'] * 4
    assert cells_of((0, 14, 5, 6)) == ['.#....'] * 4  # the last cell holds half as much as the others
    assert cells_of((0, 13, 5, 6)) == ['.#....'] * 3 + ['......']
    assert cells_of((0, 16, 5, 6), (4, 8, 12, 16)) == ['......', '...#..', '......', '......']


def test_cells_of_a_ring():
    """What it encloses, where its centre of mass lies, is no part of it."""
    assert cells_of((0, 12, 0, 12), without=[(4, 8, 4, 8)]) == ['###...', '#.#...', '###...', '......']


def test_cells_of_nothing_and_everything():
    assert cells_of() == ['......'] * 4
    assert cells_of((0, 16, 0, 24), shape=(3, 5)) == ['#####'] * 3


@pytest.mark.parametrize('size', [(37, 53), (64, 48), (5, 3), (1, 1)], ids=str)
@pytest.mark.parametrize('shape', [(7, 9), (24, 24), (1, 1)], ids=str)
def test_area_average(size, shape):
    """Against the mean over pixels cut so small that every cell holds whole ones."""
    mask = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) < 0.5
    fine = mask.double().repeat_interleave(shape[0], 1).repeat_interleave(shape[1], 2)
    expected = fine.view(3, shape[0], size[0], shape[1], size[1]).mean((2, 4))
    found = area_average(mask, shape)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float())


def test_area_average_works_on_a_few_objects_at_a_time(monkeypatch):
    mask = torch.rand(5, 20, 30, generator=torch.Generator().manual_seed(0)) < 0.5
    expected, sizes = area_average(mask, (7, 9)), []
    to_float = torch.Tensor.float

    def spy(self):
        sizes.append(self.numel())
        return to_float(self)

    with monkeypatch.context() as patch:
        patch.setattr(masks, 'FLOAT_PIXELS', 1300)  # two masks
        patch.setattr(torch.Tensor, 'float', spy)
        found = area_average(mask, (7, 9))
    assert torch.equal(found, expected)
    assert max(sizes) == 1200
