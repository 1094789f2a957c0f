"""The rule-based stand-in of the end-to-end tests does what it says."""

import numpy as np
import pytest
import torch
from rule_segmenter import RuleSegmenter, regions
from scipy import ndimage

from atss_ext.vlsam.protocols import Segmenter, VlsamError

# Two red squares that touch at a corner only, and a green one.
DRAWING = """
........
.rr.....
.rr..gg.
...rrgg.
...rr...
........
"""
COLOURS = {'.': (0, 0, 0), 'r': (200, 0, 0), 'g': (0, 200, 0)}


def image() -> np.ndarray:
    return np.array([[COLOURS[c] for c in row] for row in DRAWING.split()], np.uint8)


def drawn(masks: torch.Tensor) -> list[str]:
    return ['\n'.join(''.join('.#'[int(v)] for v in row) for row in mask) for mask in masks]


FIRST = '........\n.##.....\n.##.....\n........\n........\n........'
SECOND = '........\n........\n........\n...##...\n...##...\n........'


def look(points, labels, **others):
    segmenter = RuleSegmenter()
    return segmenter.segment(segmenter.embed(image()), torch.tensor(points), torch.tensor(labels), **others)


def test_masks_and_ious():
    """The squares are two regions; a negative point costs half where it lies inside; -10 is no point."""
    found = look(
        [[[1.0, 1.0], [5.0, 2.0]], [[4.9, 3.2], [3.0, 4.9]], [[2.5, 2.5], [1.0, 1.0]]],
        [[1, 0], [1, 0], [1, -10]],
    )
    assert drawn(found.masks) == [FIRST, SECOND, FIRST]
    assert found.ious.tolist() == [1.0, 0.5, 1.0]


def test_several_positive_points_and_points_outside():
    found = look([[[1.0, 1.0], [3.0, 3.0]], [[-9.0, -9.0], [99.0, 99.0]]], [[1, 1], [1, 1]])
    assert drawn(found.masks)[0] == '........\n.##.....\n.##.....\n...##...\n...##...\n........'
    assert int(found.masks[1].sum()) == 48 - 12


def test_boxes():
    found = look([[[0.0, 0.0]]] * 2, [[-10]] * 2, boxes=torch.tensor([[1.0, 1, 3, 3], [2, 2, 5, 5]]))
    assert drawn(found.masks) == [FIRST, SECOND]


def test_mask_logits():
    """A quarter of the size; 0 at half; what the edge cuts off counts neither way."""
    found = look([[[1.0, 1.0]], [[3.0, 3.0]]], [[1], [1]])
    assert found.mask_logits.tolist() == [[[-4, -8], [-8, -8]], [[-7, -7], [-6, -6]]]
    everything = RuleSegmenter()
    flat = everything.embed(np.zeros((5, 6, 3), np.uint8))
    whole = everything.segment(flat, torch.zeros(1, 1, 2), torch.ones(1, 1))
    assert whole.mask_logits.tolist() == [[[8, 8], [8, 8]]]


def test_an_object_without_a_prompt():
    with pytest.raises(VlsamError, match='Object 0 has neither'):
        look([[[1.0, 1.0]]], [[0]])


def test_regions_against_scipy():
    """A maze of two colours has components of every shape."""
    colours = np.random.default_rng(0).random((60, 70)) < 0.5
    found = regions(np.repeat(colours[..., None], 3, -1).astype(np.uint8))
    total = 0
    for colour in (True, False):
        numbers, count = ndimage.label(colours == colour)
        total += count
        for number in range(1, count + 1):
            assert len(np.unique(found[numbers == number])) == 1
    assert len(np.unique(found)) == total


def test_it_is_a_segmenter_and_counts():
    segmenter = RuleSegmenter()
    assert isinstance(segmenter, Segmenter)
    embedding = segmenter.embed(image())
    found = segmenter.segment(embedding, torch.zeros(0, 2, 2), torch.zeros(0, 2), multimask=False)
    assert found.masks.shape == (0, 6, 8)
    assert segmenter.embedded == len(segmenter.calls) == 1
    assert segmenter.calls[0]['multimask'] is False
