"""The compiled library: schema, kernel against the reference, fake kernel."""

import math

import pytest
import torch

from atss_ext import ops
from atss_ext.ops import reference


def random_pairs(count: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    corners = torch.rand(2, count, 4, dtype=torch.float64) * 100
    boxes = torch.cat([corners[..., :2], corners[..., :2] + corners[..., 2:]], -1).to(dtype)
    return boxes[0], boxes[1]


def test_the_library_is_built():
    assert ops.available()
    schema = torch.ops.atss_ext.aligned_box_iou.default._schema
    assert str(schema) == 'atss_ext::aligned_box_iou(Tensor boxes1, Tensor boxes2) -> Tensor'


def test_literal_values():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1], [3, 3, 3, 3]])
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6], [3, 3, 3, 3]])
    assert ops.aligned_box_iou(a, b).tolist() == pytest.approx([1 / 7, 1, 0, 0], abs=1e-7)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('count', [0, 1, 7, 30000])
def test_kernel_equals_reference_bit_by_bit(dtype, count):
    a, b = random_pairs(count, dtype)
    native = torch.ops.atss_ext.aligned_box_iou(a, b)
    assert native.dtype == dtype
    assert torch.equal(native, reference.aligned_box_iou(a, b))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(dtype):
    a, b = random_pairs(500, dtype)
    expected = reference.aligned_box_iou(a.float(), b.float()).to(dtype)
    assert torch.equal(torch.ops.atss_ext.aligned_box_iou(a, b), expected)


def test_non_contiguous():
    a, b = random_pairs(50, torch.float32)
    strided = torch.stack([a, b], 2)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(torch.ops.atss_ext.aligned_box_iou(strided, b), reference.aligned_box_iou(a, b))


def test_nan_stays_visible():
    a = torch.tensor([[math.nan, 0, 2, 2]])
    assert ops.aligned_box_iou(a, torch.tensor([[0.0, 0, 2, 2]])).isnan().tolist() == [
        bool(reference.aligned_box_iou(a, torch.tensor([[0.0, 0, 2, 2]])).isnan())
    ]


@pytest.mark.parametrize(
    ('a', 'b', 'sentence'),
    [
        (torch.zeros(3, 5), torch.zeros(3, 5), r'boxes1 must be \[N, 4\], got \[3, 5\]'),
        (torch.zeros(3, 4), torch.zeros(2, 4), r'boxes2 must be \[3, 4\] like boxes1, got \[2, 4\]'),
        (torch.zeros(3, 4), torch.zeros(3, 4).double(), 'boxes1 is Float and boxes2 Double'),
    ],
)
def test_bad_input_is_named(a, b, sentence):
    with pytest.raises(RuntimeError, match=sentence):
        torch.ops.atss_ext.aligned_box_iou(a, b)


def test_opcheck():
    assert ops.available()
    results = torch.library.opcheck(
        torch.ops.atss_ext.aligned_box_iou.default, random_pairs(5, torch.float32)
    )
    assert set(results.values()) == {'SUCCESS'}


def test_gradients_flow_through_the_reference():
    a, b = (t.requires_grad_() for t in random_pairs(6, torch.float64))
    assert torch.autograd.gradcheck(ops.aligned_box_iou, (a, b))
