"""Overlaps against the reference, mmdet, torchvision and values worked out by hand."""

import math

import pytest
import torch
import torchvision.ops
from mmdet.structures.bbox import bbox_overlaps
from samples import MODES, offsets_of, overlap_pairs, random_boxes, same_values, zero_area_boxes
from torch import Tensor

from atss_ext import ops
from atss_ext.ops import checks, reference

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def expected_aligned(a: Tensor, b: Tensor, mode: str) -> Tensor:
    """The reference, half types computed in float32."""
    result = torch.promote_types(a.dtype, b.dtype)
    dtype = torch.float64 if result == torch.float64 else torch.float32
    return reference.aligned_box_iou(a.to(dtype), b.to(dtype), mode).to(result)


def equal_but_for_atan(a: Tensor, b: Tensor, mode: str) -> bool:
    """The same bits; CIoU to 4 eps, because PyTorch's vectorised arc tangent is not the C library's."""
    if mode != 'ciou':
        return same_values(a, b)
    return a.dtype == b.dtype and torch.allclose(
        a, b, rtol=0, atol=4 * torch.finfo(a.dtype).eps, equal_nan=True
    )


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', overlap_pairs())
def test_aligned_equals_reference(mode, name):
    a, b = overlap_pairs()[name]
    ours = ops.aligned_box_iou(a, b, mode)
    assert ours.dtype == torch.promote_types(a.dtype, b.dtype)
    assert equal_but_for_atan(ours, expected_aligned(a, b, mode), mode)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', overlap_pairs())
def test_batched_equals_aligned(mode, name):
    a, b = overlap_pairs()[name]
    expected = ops.aligned_box_iou(
        a[:, None].expand(-1, len(b), -1).contiguous(), b[None].expand(len(a), -1, -1).contiguous(), mode
    )
    assert same_values(ops.batched_box_iou(a, b, mode), expected)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('sizes', [(0, 5), (5, 0), (0, 0), (1, 1), (3, 70), (70, 3), (500, 333)])
def test_sizes(mode, sizes):
    a, b = random_boxes(sizes[0], 1), random_boxes(sizes[1], 2)
    ours = ops.batched_box_iou(a, b, mode)
    assert ours.shape == sizes
    assert equal_but_for_atan(ours, reference.batched_box_iou(a, b, mode), mode)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('counts', [(4, 0, 7), (0, 0, 5), (5, 0), (0, 0), (11,)])
def test_images(mode, dtype, counts):
    """Packed columns, with rows shared and not, are those of each image on its own."""
    rows = random_boxes(13 * len(counts), 1).to(dtype).view(len(counts), 13, 4)
    packed, offsets = random_boxes(sum(counts), 2).to(dtype), offsets_of(counts)
    own = ops.batched_box_iou(rows, packed, mode, offsets)
    shared = ops.batched_box_iou(rows[0], packed, mode, offsets)
    assert own.dtype == shared.dtype == dtype
    images = packed.split(list(counts))
    alone = torch.cat([ops.batched_box_iou(r, image, mode) for r, image in zip(rows, images, strict=True)], 1)
    assert torch.equal(own, alone)
    assert torch.equal(shared, ops.batched_box_iou(rows[0], packed, mode))
    expected = reference.batched_box_iou(rows.float(), packed.float(), mode, offsets)
    if dtype == torch.float32:
        assert equal_but_for_atan(own, expected, mode)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('dtype', FLOATS)
def test_padded_images(mode, dtype):
    rows, columns = (
        random_boxes(3 * 17, 1).to(dtype).view(3, 17, 4),
        random_boxes(3 * 6, 2).to(dtype).view(3, 6, 4),
    )
    ours = ops.batched_box_iou(rows, columns, mode)
    alone = [ops.batched_box_iou(a, b, mode) for a, b in zip(rows, columns, strict=True)]
    assert torch.equal(ours, torch.stack(alone))
    assert ops.batched_box_iou(rows[:0], columns[:0], mode).shape == (0, 17, 6)


@pytest.mark.parametrize('mode', ['iou', 'iof', 'giou'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('name', ['ordinary', 'identical', 'zero area', 'apart', 'empty'])
def test_equals_mmdet_bit_by_bit(mode, dtype, name):
    a, b = (boxes.to(dtype) for boxes in overlap_pairs()[name])
    assert torch.equal(ops.batched_box_iou(a, b, mode), bbox_overlaps(a, b, mode))
    assert torch.equal(ops.aligned_box_iou(a, b, mode), bbox_overlaps(a, b, mode, is_aligned=True))


TORCHVISION = {
    'iou': torchvision.ops.box_iou,
    'giou': torchvision.ops.generalized_box_iou,
    'diou': torchvision.ops.distance_box_iou,
    'ciou': torchvision.ops.complete_box_iou,
}


@pytest.mark.parametrize('mode', TORCHVISION)
def test_equals_torchvision(mode):
    """Boxes of 10 pixels or more: torchvision adds 1e-7 to denominators of 100 and more where we add none."""
    a, b = (torch.cat([c[:, :2], c[:, 2:] + 10], 1) for c in (random_boxes(200, 1), random_boxes(150, 2)))
    a, b = a.double(), b.double()
    expected = TORCHVISION[mode](a, b)
    torch.testing.assert_close(ops.batched_box_iou(a, b, mode), expected, rtol=0, atol=2e-7)
    assert expected.max() > 0.5


def test_literal_values():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 4, 2]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [3, 4, 4, 5], [1, 0, 3, 1]], dtype=torch.float64)
    ratio = 4 / math.pi**2 * (math.atan(2) - math.atan(2)) ** 2
    expected = {
        'iou': [1 / 7, 1, 0, 2 / 8],
        'iof': [1 / 4, 1, 0, 2 / 8],
        'giou': [1 / 7 - 2 / 9, 1, -(20 - 2) / 20, 1 / 4],
        'diou': [1 / 7 - 2 / 18, 1, -(9 + 16) / (16 + 25), 1 / 4 - 0.25 / 20],
        'ciou': [1 / 7 - 2 / 18, 1, -25 / 41, 1 / 4 - 0.25 / 20 - ratio],
    }
    for mode, values in expected.items():
        assert ops.aligned_box_iou(a, b, mode).tolist() == pytest.approx(values, abs=1e-15)
        assert ops.batched_box_iou(a, b, mode).diagonal().tolist() == pytest.approx(values, abs=1e-15)


def test_literal_aspect_penalty():
    """A 4 x 1 and a 1 x 4 box about the same centre: only the ratios differ."""
    a, b = torch.tensor([[0.0, 1.5, 4, 2.5]]).double(), torch.tensor([[1.5, 0.0, 2.5, 4]]).double()
    v = 4 / math.pi**2 * (math.atan(4) - math.atan(1 / 4)) ** 2
    iou = 1 / 7
    expected = iou - v * v / (1 - iou + v)
    assert ops.aligned_box_iou(a, b, 'ciou').tolist() == pytest.approx([expected], abs=1e-15)


@pytest.mark.parametrize('mode', MODES)
def test_identical_boxes(mode):
    boxes = (random_boxes(100, 3) * 4).round() / 4 + torch.tensor([0, 0, 1.0, 1.0])
    assert (ops.aligned_box_iou(boxes, boxes, mode) == 1).all()


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('dtype', FLOATS)
def test_zero_area_is_never_nan(mode, dtype):
    boxes = zero_area_boxes().to(dtype)
    both = ops.batched_box_iou(boxes, boxes, mode)
    assert both.isfinite().all()
    if mode in ('iou', 'iof'):
        assert not both.any()
    assert not ops.batched_box_iou(boxes, random_boxes(50).to(dtype), 'iou').any()


@pytest.mark.parametrize('mode', MODES)
def test_inverted_boxes_as_the_reference(mode):
    a, b = random_boxes(50, 1)[:, [2, 3, 0, 1]].contiguous(), random_boxes(50, 2)
    ours, expected = ops.batched_box_iou(a, b, mode), reference.batched_box_iou(a, b, mode)
    if mode == 'ciou':
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(ours, expected)
    assert not ops.batched_box_iou(a, b).any()


def nan_pair(column: int, first: bool) -> tuple[Tensor, Tensor]:
    good, bad = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 2]])
    bad[0, column] = math.nan
    return (bad, good) if first else (good, bad)


@pytest.mark.parametrize('column', range(4))
@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('mode', ['iou', 'iof', 'giou', 'diou', 'ciou'])
def test_nan_stays_visible(mode, first, column):
    pair = nan_pair(column, first)
    assert reference.aligned_box_iou(*pair, mode).isnan().all()
    assert ops.aligned_box_iou(*pair, mode).isnan().all()
    assert ops.batched_box_iou(*pair, mode).isnan().all()


def test_non_contiguous():
    a, b = random_boxes(50, 1), random_boxes(40, 2)
    strided, turned = torch.stack([a, -a], 2)[..., 0], b.t().contiguous().t()
    assert not strided.is_contiguous()
    assert not turned.is_contiguous()
    assert torch.equal(ops.batched_box_iou(strided, turned, 'giou'), ops.batched_box_iou(a, b, 'giou'))
    assert torch.equal(ops.aligned_box_iou(strided[:40], turned), ops.aligned_box_iou(a[:40], b))
    offsets = torch.stack([offsets_of([15, 25]), offsets_of([0, 0])], 1)[:, 0]
    assert torch.equal(ops.batched_box_iou(strided, turned, 'iou', offsets), ops.batched_box_iou(a, b))


def overlapping_pairs(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Boxes in general position: no two edges within a hundredth of a pixel; some pairs lie apart."""
    unit = torch.rand(4 * count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    boxes = torch.cat([unit[:, :2] * 6, unit[:, :2] * 6 + 1 + unit[:, 2:] * 8], 1)
    a, b = boxes.chunk(2)
    gaps = (a[:, [0, 0, 2, 2, 1, 1, 3, 3]] - b[:, [0, 2, 0, 2, 1, 3, 1, 3]]).abs()
    generic = (gaps > 0.01).all(1)
    return a[generic][:count].to(dtype), b[generic][:count].to(dtype)


@pytest.mark.parametrize('mode', MODES)
def test_gradcheck(mode):
    a, b = (t.requires_grad_() for t in overlapping_pairs(40))
    overlaps = ops.aligned_box_iou(a, b)
    assert 0 < int((overlaps == 0).sum()) < len(overlaps)
    assert torch.autograd.gradcheck(lambda x, y: ops.aligned_box_iou(x, y, mode), (a, b))


def gradients(function, pair: tuple[Tensor, Tensor], mode: str) -> list[Tensor]:
    leaves = [boxes.clone().requires_grad_() for boxes in pair]
    values = function(*leaves, mode)
    values.backward(torch.linspace(-1, 2, values.numel(), dtype=values.dtype).view_as(values))
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize('mode', MODES)
def test_gradients_equal_the_reference(mode):
    pair = overlapping_pairs(300)
    expected = gradients(reference.aligned_box_iou, pair, mode)
    for ours, theirs in zip(gradients(ops.aligned_box_iou, pair, mode), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)  # sums in another order
        assert theirs.abs().max() > 0.01


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_gradients_are_computed_in_float32(dtype):
    pair = overlapping_pairs(50, dtype)
    leaves = [boxes.clone().requires_grad_() for boxes in pair]
    ops.aligned_box_iou(*leaves, 'giou').sum().backward()
    full = [boxes.float().requires_grad_() for boxes in pair]
    ops.aligned_box_iou(*full, 'giou').sum().backward()
    for half, single in zip(leaves, full, strict=True):
        assert half.grad.dtype == dtype
        assert torch.equal(half.grad, single.grad.to(dtype))


@pytest.mark.parametrize('wanted', [(True, False), (False, True)])
def test_gradient_for_one_side_only(wanted):
    pair = [t.requires_grad_(w) for t, w in zip(overlapping_pairs(20), wanted, strict=True)]
    expected = gradients(ops.aligned_box_iou, tuple(t.detach() for t in pair), 'giou')
    values = ops.aligned_box_iou(*pair, 'giou')
    values.backward(torch.linspace(-1, 2, 20, dtype=values.dtype))
    for box, wants, grad in zip(pair, wanted, expected, strict=True):
        assert torch.equal(box.grad, grad) if wants else box.grad is None


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('packed', [False, True])
def test_batched_gradient_is_that_of_all_pairs(mode, packed):
    a, b = overlapping_pairs(12)
    offsets = offsets_of([5, 0, 7]) if packed else None
    ours = gradients(lambda x, y, m: ops.batched_box_iou(x, y, m, offsets), (a, b), mode)
    expected = gradients(
        lambda x, y, m: ops.aligned_box_iou(
            x[:, None].expand(-1, len(y), -1), y[None].expand(len(x), -1, -1), m
        ),
        (a, b),
        mode,
    )
    for grad, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(grad, theirs, rtol=1e-10, atol=1e-12)
    leaf = a.clone().requires_grad_()
    with torch.no_grad():
        assert not ops.batched_box_iou(leaf, b, mode, offsets).requires_grad


Z, L = torch.zeros, torch.tensor


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        ((Z(3, 5), Z(3, 5)), r'boxes1 must be \[..., 4\], got \[3, 5\]'),
        ((Z(3, 4), Z(4)[0]), r'boxes2 must be \[..., 4\], got \[\]'),
        ((Z(3, 4), Z(2, 4)), r'boxes2 must be \[3, 4\] like boxes1, got \[2, 4\]'),
        ((Z(3, 4), Z(1, 4)), r'boxes2 must be \[3, 4\] like boxes1, got \[1, 4\]'),
        ((Z(3, 4).long(), Z(3, 4)), 'boxes1 must hold floats, got Long'),
        ((Z(3, 4), Z(3, 4).int()), 'boxes2 must hold floats, got Int'),
        ((Z(3, 4), Z(3, 4), 'union'), "mode must be iou, iof, giou, diou or ciou, got 'union'"),
    ],
)
def test_bad_aligned_arguments_are_named(args, sentence, route):
    with pytest.raises(ValueError, match=sentence):
        ops.aligned_box_iou(*args)


BAD_BATCHED = pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        ((Z(3, 4), Z(2, 4).long()), 'boxes2 must hold floats, got Long'),
        ((Z(3, 4), Z(2, 3)), r'boxes2 must be \[..., 4\], got \[2, 3\]'),
        ((Z(3, 4), Z(2, 4), 'IoU'), "got 'IoU'"),
        ((Z(3, 4), Z(2, 5, 4)), r'got \[3, 4\] and \[2, 5, 4\]'),
        ((Z(3, 2, 4), Z(2, 2, 4)), r'got \[3, 2, 4\] and \[2, 2, 4\]'),
        ((Z(3, 4), Z(2, 5, 4), 'iou', L([0, 5, 10])), r'boxes2 must be \[T, 4\], got \[2, 5, 4\]'),
        ((Z(3, 6, 4), Z(5, 4), 'iou', L([0, 2, 5])), r'\[2, N, 4\], got \[3, 6, 4\]'),
        ((Z(3, 4), Z(5, 4), 'iou', L([0, 3, 2, 5])), 'offsets must not decrease, got 3 before 2'),
        ((Z(3, 4), Z(5, 4), 'iou', L([0, 4])), 'from 0 to 5, the number of boxes, got 0 to 4'),
        ((Z(3, 4), Z(5, 4), 'iou', L([1, 5])), 'got 1 to 5'),
        ((Z(3, 4), Z(5, 4), 'iou', L([0, 5]).int()), r'offsets must be int64 \[images \+ 1\], got Int \[2\]'),
        ((Z(3, 4), Z(0, 4), 'iou', L([0])), r'got Long \[1\]'),
        ((Z(3, 4), Z(5, 4), 'iou', L([[0, 5]])), r'got Long \[1, 2\]'),
    ],
)


@BAD_BATCHED
def test_bad_batched_arguments_are_named(args, sentence, route):
    with pytest.raises(ValueError, match=sentence):
        ops.batched_box_iou(*args)


@BAD_BATCHED
def test_bad_batched_arguments_are_named_where_a_gradient_is_wanted(args, sentence):
    boxes1, *rest = args
    with pytest.raises(ValueError, match=sentence):
        ops.batched_box_iou(boxes1.clone().requires_grad_(), *rest)


def test_values_of_offsets_are_not_read_from_a_device(monkeypatch):
    """Nobody waits for a device: its offsets are trusted, as the library trusts them."""
    boxes, offsets = Z(5, 4, device='meta'), Z(3, device='meta', dtype=torch.long)
    monkeypatch.setattr(Tensor, 'tolist', None)
    checks.check_batched(boxes, boxes, 'iou', offsets)
    with pytest.raises(ValueError, match='offsets is on cpu and the boxes on meta: move one of them'):
        checks.check_batched(boxes, boxes, 'iou', L([0, 2, 5]))


def test_a_second_derivative_is_refused():
    a, b = (boxes.requires_grad_() for boxes in overlapping_pairs(5))
    (grad,) = torch.autograd.grad(ops.aligned_box_iou(a, b, 'giou').sum(), a, create_graph=True)
    with pytest.raises(NotImplementedError, match=r'differentiated once: use .*reference\.aligned_box_iou'):
        grad.sum().backward()
    (grad,) = torch.autograd.grad(reference.aligned_box_iou(a, b, 'giou').sum(), a, create_graph=True)
    grad.sum().backward()
    assert a.grad.abs().max() > 0


def test_bad_backward_argument_is_named():
    with pytest.raises(ValueError, match=r'grad must be \[3\], got \[2\]'):
        torch.ops.atss_ext.aligned_box_iou_backward(Z(2), Z(3, 4), Z(3, 4), 'iou')
