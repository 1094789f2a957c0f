"""Targets of an assignment against the reference and values worked out by hand."""

import math

import pytest
import torch
from samples import (
    assert_identical,
    assert_same_targets,
    offsets_of,
    op_samples,
    random_boxes,
    random_case,
    target_args,
)

from atss_ext import ops
from atss_ext.ops import reference


def test_literal_targets():
    priors = torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8], [100, 100, 108, 108]])
    boxes = torch.tensor([[0.0, 0, 16, 8], [2, 2, 10, 12], [0, 0, 5, 5]])
    assigned = torch.tensor([[1, 2, -1], [0, 0, 1]])
    targets = ops.gather_targets(priors, assigned, boxes, torch.tensor([3, 5, 6]), offsets_of([2, 1]), 80)
    assert targets.labels.tolist() == [[3, 5, 80], [80, 80, 6]]
    assert targets.weights.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert targets.positive.tolist() == [[True, True, False], [False, False, True]]
    assert targets.boxes[0].tolist() == [boxes[0].tolist(), boxes[1].tolist(), priors[2].tolist()]
    assert targets.boxes[1].tolist() == [priors[0].tolist(), priors[1].tolist(), boxes[2].tolist()]
    # Centre (4, 4) in the first gt: l 4, r 12, t 4, b 4. Centre (8, 4) in the second: l 6, r 2, t 2, b 8.
    # The last prior lies outside its gt.
    expected = [math.sqrt(4 / 12), math.sqrt(2 / 6 * 2 / 8), 0]
    assert targets.centerness[0].tolist() == pytest.approx(expected)
    assert targets.centerness[1].tolist() == [0, 0, 0]
    assert targets.num_positives.tolist() == 3


@pytest.mark.parametrize(('pos_weight', 'weights'), [(-1, [1, 1, 0]), (0, [1, 1, 0]), (2.5, [2.5, 1, 0])])
def test_weight_of_positives(pos_weight, weights):
    boxes, labels = random_boxes(1), torch.tensor([0])
    arguments = random_boxes(3, 1), torch.tensor([[1, 0, -1]]), boxes, labels, offsets_of([1]), 80
    assert ops.gather_targets(*arguments, pos_weight).weights.tolist() == [weights]


def test_images_without_positives_count_as_one():
    assigned = torch.tensor([[0, 0, 0], [1, 2, 1], [-1, -1, -1]])
    boxes, labels = random_boxes(2), torch.tensor([0, 1])
    targets = ops.gather_targets(random_boxes(3, 1), assigned, boxes, labels, offsets_of([0, 2, 0]), 80)
    assert targets.num_positives.tolist() == 1 + 3 + 1


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('counts', [(5, 0, 12), (0, 3), (4, 0), (0, 0), (7,)])
@pytest.mark.parametrize('pos_weight', [-1, 3.0])
def test_equals_reference(dtype, counts, pos_weight):
    args = target_args(random_case(counts).to(dtype), pos_weight)
    assert_same_targets(ops.gather_targets(*args), reference.gather_targets(*args))


def test_mixed_types_are_computed_in_the_wider():
    args = list(target_args(random_case(), -1))
    args[2] = args[2].double()
    targets = ops.gather_targets(*args)
    assert targets.centerness.dtype == targets.boxes.dtype == targets.num_positives.dtype == torch.float64
    assert_same_targets(targets, reference.gather_targets(*args))


@pytest.mark.parametrize('sample', [s for s in op_samples() if s.op == 'gather_targets'], ids=str)
def test_an_image_does_not_depend_on_the_others(sample):
    priors, assigned, boxes, labels, offsets, *rest = sample.args
    whole = ops.gather_targets(*sample.args)
    positives = 0
    for image, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        own = boxes[start:end], labels[start:end], offsets_of([end - start])
        alone = ops.gather_targets(priors, assigned[image : image + 1], *own, *rest)
        assert_identical(alone[:5], [result[image : image + 1] for result in whole[:5]])
        positives += float(alone.num_positives)
    assert positives == float(whole.num_positives)


@pytest.mark.parametrize('image', [0, 1])
def test_an_assignment_beyond_the_gts_is_background(image):
    """Corrupt numbers read nothing outside the arrays."""
    assigned = torch.tensor([[1, 2, 0], [1, 2, 0]])
    assigned[image, 0] = 2**40
    boxes, labels = random_boxes(4), torch.arange(4)
    priors = random_boxes(3, 1)
    targets = ops.gather_targets(priors, assigned, boxes, labels, offsets_of([2, 2]), 80)
    assert targets.labels[image, 0] == 80
    assert not targets.positive[image, 0]
    assert torch.equal(targets.boxes[image, 0], priors[0])
    assert targets.num_positives == 3


def test_degenerate_gts_have_finite_centerness():
    boxes = torch.tensor([[4.0, 4, 4, 4], [0, 4, 8, 4]])
    priors, assigned = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 8]]), torch.tensor([[1, 2]])
    targets = ops.gather_targets(priors, assigned, boxes, torch.arange(2), offsets_of([2]), 80)
    assert targets.centerness.tolist() == [[0, 0]]


GOOD = {
    'priors': torch.zeros(6, 4),
    'assigned': torch.zeros(2, 6, dtype=torch.long),
    'gt_boxes': torch.zeros(3, 4),
    'gt_labels': torch.zeros(3, dtype=torch.long),
    'offsets': torch.tensor([0, 1, 3]),
    'num_classes': 80,
}


@pytest.mark.parametrize(
    ('name', 'value', 'sentence'),
    [
        ('priors', torch.zeros(6, 5), r'priors must be \[..., 4\], got \[6, 5\]'),
        ('priors', torch.zeros(1, 6, 4), r'priors must be \[N, 4\], got \[1, 6, 4\]'),
        ('assigned', torch.zeros(2, 6), r'assigned must be int64 \[2, 6\] .*, got Float \[2, 6\]'),
        ('assigned', torch.zeros(2, 5, dtype=torch.long), r'\[2, 6\] \(images, priors\), got Long \[2, 5\]'),
        ('assigned', torch.zeros(3, 6, dtype=torch.long), r'got Long \[3, 6\]'),
        ('gt_boxes', torch.zeros(3, 4, dtype=torch.long), 'gt_boxes must hold floats, got Long'),
        ('gt_labels', torch.zeros(4, dtype=torch.long), r'gt_labels must be int64 \[3\], got Long \[4\]'),
        ('gt_labels', torch.zeros(3), r'gt_labels must be int64 \[3\], got Float \[3\]'),
        ('offsets', torch.tensor([0, 1, 2]), 'offsets must run from 0 to 3, .* got 0 to 2'),
        ('offsets', torch.tensor([0, 4, 3]), 'offsets must not decrease, got 4 before 3'),
    ],
)
def test_bad_arguments_are_named(name, value, sentence, route):
    with pytest.raises(ValueError, match=sentence):
        ops.gather_targets(**{**GOOD, name: value})


@pytest.mark.parametrize('place', [0, 2])
def test_targets_carry_no_gradient(place, route):
    args = list(target_args(random_case(), -1))
    plain = ops.gather_targets(*args)
    args[place] = args[place].clone().requires_grad_()
    targets = ops.gather_targets(*args)
    assert [target.requires_grad for target in targets] == [False] * 6
    assert_identical(targets, plain)
