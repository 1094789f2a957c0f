"""Two steps that are not the paper's: maps weighed against each other, and points between cells."""

import itertools

import numpy as np
import pytest
import torch
from rule_segmenter import RuleSegmenter
from rule_vlm import RuleVLM, draw

from atss_ext.vlsam import Pipeline, PipelineOptions
from atss_ext.vlsam.prompt_maps import contrast_maps
from atss_ext.vlsam.prompts import NO_POINT, PromptOptions, sample_points
from atss_ext.vlsam.protocols import Segmentation

ROW = torch.ones(1, 3, dtype=torch.bool)
MEAN = PromptOptions(contrast='mean')
CENTROID = PromptOptions(position='centroid')


def test_contrast_by_hand():
    # As shares: (.75, .25, 0) and (.25, .25, .5), their mean (.5, .25, .25).
    maps = torch.tensor([[[6.0, 2.0, 0.0]], [[2.0, 2.0, 4.0]]])
    expected = torch.tensor([[[0.75 * 1.5, 0.25, 0.0]], [[0.25 * 0.5, 0.25, 0.5 * 2]]])
    torch.testing.assert_close(contrast_maps(maps, ROW), expected)
    # How much attention an object has in all does not matter.
    scaled = maps * torch.tensor([1e-20, 1e20])[:, None, None]
    torch.testing.assert_close(contrast_maps(scaled, ROW), expected)
    # A third cell without a token: shares (.75, .25) and (.5, .5), mean (.625, .375).
    present = torch.tensor([[True, True, False]])
    expected = torch.tensor([[[0.9, 1 / 6, 0.0]], [[0.4, 2 / 3, 0.0]]])
    found = contrast_maps(torch.tensor([[[6.0, 2.0, 50.0]], [[2.0, 2.001, 9.0]]]), present)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_contrast_leaves_what_nothing_can_be_compared_with():
    one = torch.tensor([[[6.0, 2.0, 0.0]]])
    shares = one / 8
    assert torch.equal(contrast_maps(one, ROW), shares)
    # Two objects at one place.
    assert torch.equal(contrast_maps(one.repeat(2, 1, 1), ROW), shares.repeat(2, 1, 1))
    # A map that tells nothing has no say, and no map of its own.
    silent = torch.cat([one, torch.full((1, 1, 3), 4.0), torch.zeros(1, 1, 3)])
    assert torch.equal(contrast_maps(silent, ROW), torch.cat([shares, torch.zeros(2, 1, 3)]))
    assert contrast_maps(torch.zeros(0, 1, 3), ROW).shape == (0, 1, 3)


def shared_bump() -> torch.Tensor:
    """Two 5 x 5 maps: each has its object's cell, both are highest in the middle and lowest in a corner.

    The first object lies at (1, 1), the second at (3, 3); both have nearly nothing at (4, 0).
    """
    maps = torch.full((2, 5, 5), 0.2)
    maps[:, 2, 2] = 1
    maps[0, 1, 1] = maps[1, 3, 3] = 0.95
    maps[:, 4, 0] = 0.1
    return maps


def cells(prompts, index: int) -> list[list[int]]:
    """[row, column] of each point of an object, on 5 x 5 cells."""
    return (prompts.points[index] * 5).long().flip(-1).tolist()


def test_points_after_contrast():
    maps = shared_bump()
    plain, weighed = sample_points(maps), sample_points(maps, MEAN)
    assert [cells(plain, index) for index in (0, 1)] == [[[2, 2], [4, 0]]] * 2
    # Of u^2 / mean(u) the first object's cell is .95^2 / .575 to the middle's 1; the second's is .2^2 / .575,
    # less than the corner's .1, but the negative point stays where there is least attention.
    assert [cells(weighed, index) for index in (0, 1)] == [[[1, 1], [4, 0]], [[3, 3], [4, 0]]]
    least, middle, most = 0.2**2 / 0.575, 1.0, 0.95**2 / 0.575
    torch.testing.assert_close(weighed.maps[0, 2, 2], torch.tensor((middle - least) / (most - least)))
    assert weighed.maps[0].argmin() == 3 * 5 + 3
    assert weighed.maps[0].max() == 1
    assert weighed.areas[0].nonzero().tolist() == [[1, 1], [2, 2]]


def test_the_order_of_objects_changes_no_bit():
    maps = torch.from_numpy(np.random.default_rng(3).random((4, 6, 7), np.float32) ** 3)
    maps[2] = torch.nan
    options = PromptOptions(contrast='mean', position='centroid', smoothing=0.6, sinks='median')
    reference = sample_points(maps, options)
    for order in itertools.permutations(range(4)):
        found = sample_points(maps[list(order)], options)
        for ours, theirs in zip(found, reference, strict=True):
            assert torch.equal(ours, theirs[list(order)])
    assert reference.valid.tolist() == [True, True, False, True]
    assert reference.labels[2].tolist() == [NO_POINT, NO_POINT]
    # The broken one has no say.
    for ours, theirs in zip(sample_points(maps[[0, 1, 3]], options), reference, strict=True):
        assert torch.equal(ours, theirs[[0, 1, 3]])


def test_a_centroid_by_hand():
    maps = torch.zeros(1, 4, 5)
    maps[0, 1, 1:4] = torch.tensor([0.25, 1.0, 0.75])
    maps[0, 2, 2] = 0.5
    maps[0, 3, 2] = maps[0, 1, 4] = 0.4  # two cells away
    prompts = sample_points(maps, CENTROID)
    total = 0.25 + 1 + 0.75 + 0.5
    x = (0.25 * 1.5 + 1.5 * 2.5 + 0.75 * 3.5) / total / 5
    y = (2 * 1.5 + 0.5 * 2.5) / total / 4
    torch.testing.assert_close(prompts.points[0, 0], torch.tensor([x, y]))
    # The negative one stays in the middle of its cell; so does all that is made of the map.
    plain = sample_points(maps)
    assert torch.equal(prompts.points[:, 1], plain.points[:, 1])
    for field in ('labels', 'areas', 'contrast', 'valid', 'maps'):
        assert torch.equal(getattr(prompts, field), getattr(plain, field))


def test_centroids_at_borders_of_several_points_and_of_none():
    maps = torch.zeros(3, 3, 6)
    maps[0, 0, 0], maps[0, 1, 1] = 1.0, 0.25
    maps[0, 2, 5] = 1.0
    maps[1, 0, 0] = 1.0  # alone: its own centre
    options = PromptOptions(position='centroid', positives=2, negatives=1)
    prompts = sample_points(maps, options)
    assert prompts.labels.tolist() == [[1, NO_POINT, 0], [1, NO_POINT, 0], [NO_POINT] * 3]
    torch.testing.assert_close(
        prompts.points[0, 0], torch.tensor([0.7 / 6, 0.7 / 3])
    )  # (.5 + .25 1.5) / 1.25
    torch.testing.assert_close(prompts.points[1, 0], torch.tensor([0.5 / 6, 0.5 / 3]))
    assert prompts.points[:, 1].tolist() == [[0, 0]] * 3
    assert prompts.points[2].tolist() == [[0, 0]] * 3
    wide = torch.zeros(1, 1, 7)
    wide[0, 0] = torch.tensor([0, 0.5, 1, 0.75, 0.8, 0.9, 0.6])
    both = sample_points(wide, PromptOptions(position='centroid', positives=2, negatives=0, min_distance=3))
    # Around cell 2: .5, 1, .75; around cell 5: .8, .9, .6.
    expected = [(0.5 * 1.5 + 2.5 + 0.75 * 3.5) / 2.25 / 7, (0.8 * 4.5 + 0.9 * 5.5 + 0.6 * 6.5) / 2.3 / 7]
    torch.testing.assert_close(both.points[0, :, 0], torch.tensor(expected))


def test_points_are_drawn_anew_without_weighing_the_maps_twice():
    """The segmenter takes the whole view for every object, so that the second points must be the first."""
    image = draw((96, 96), {'red square': [(8, 8, 40, 40)], 'blue square': [(50, 30, 90, 80)]})

    class Blurred(RuleVLM):
        def _coverages(self, answer):
            first, second = super()._coverages(answer)
            return [first + 0.6 * second, second + 0.6 * first]

    class Everything(RuleSegmenter):
        def __init__(self):
            super().__init__()
            self.points = []

        def segment(self, embedding, points, labels, mask_logits=None, boxes=None, multimask=True):
            found = super().segment(embedding, points, labels, mask_logits, boxes, multimask)
            self.points.append(points)
            return Segmentation(torch.ones_like(found.masks), found.ious, found.mask_logits)

    for prompts in (MEAN, PromptOptions(smoothing=1.0), PromptOptions(contrast='mean', smoothing=1.0)):
        segmenter = Everything()
        options = PipelineOptions(corners=False, questions='single', prompts=prompts)
        Pipeline(Blurred(6), segmenter, options)(image)
        first, fed_back, again = segmenter.points
        assert len(first) == 2
        torch.testing.assert_close(first, fed_back)
        torch.testing.assert_close(first, again)
    maps = sample_points(shared_bump(), MEAN).maps
    assert not torch.equal(maps, sample_points(maps, MEAN).maps)
    assert torch.equal(maps, sample_points(maps, MEAN.for_treated_maps()).maps)


def test_options_for_maps_that_were_treated():
    options = PromptOptions(0.6, 2, 3, 1.5, 4, 1.0, 'median', 8.0, 'mean', 'centroid')
    assert options.for_treated_maps() == PromptOptions(0.6, 2, 3, 1.5, 4, 0.0, 'off', 8.0, 'off', 'centroid')


@pytest.mark.parametrize('settings', [{'contrast': 'mean'}, {'position': 'centroid'}])
def test_a_config_may_set_them(settings):
    options = PipelineOptions.from_mapping({'prompts': settings})
    assert options.prompts == PromptOptions(**settings)
    assert options != PipelineOptions()
