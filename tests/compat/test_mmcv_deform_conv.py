"""Deformable convolutions of mmcv.ops against a transcription of their definition, in float64."""

# First, because it makes mmcv.ops importable without a compiled mmcv.
import atss_ext  # noqa: F401

# isort: split
import mmcv._ext
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, ModulatedDeformConv2dPack

# kernel, stride, padding, dilation, weight groups, offset groups; unequal sides find swapped axes.
GEOMETRIES = {
    'plain': ((3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    'unequal': ((3, 2), (2, 1), (1, 2), (1, 2), 1, 1),
    'weight groups': ((2, 3), (1, 2), (0, 1), (2, 1), 2, 1),
    'all groups': ((3, 3), (2, 2), (1, 1), (1, 1), 2, 4),
}


def sample(image, y, x):
    """``image`` [C, h, w] at points y, x [oh, ow], bilinear, zero outside. Differentiable by all three."""
    height, width = image.shape[1:]
    top, left = y.detach().floor().long(), x.detach().floor().long()
    total = 0
    for row in (top, top + 1):
        for column in (left, left + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            value = image[:, row.clamp(0, height - 1), column.clamp(0, width - 1)]
            total = total + value * ((1 - (y - row).abs()) * (1 - (x - column).abs()) * inside)
    return total


def literal_deform_conv(x, offset, mask, weight, bias, geometry):
    """Equation 2 of Deformable ConvNets v2, one kernel point of one image after the other."""
    (kh, kw), stride, padding, dilation, groups, offset_groups = geometry
    out_h, out_w = offset.shape[2:]
    rows, columns = torch.arange(out_h)[:, None] * stride[0], torch.arange(out_w) * stride[1]
    images = []
    for b in range(len(x)):
        points = []
        for i in range(kh):
            for j in range(kw):
                parts = []
                for d, part in enumerate(x[b].chunk(offset_groups)):
                    k = (d * kh + i) * kw + j
                    y_at = rows - padding[0] + i * dilation[0] + offset[b, 2 * k]
                    x_at = columns - padding[1] + j * dilation[1] + offset[b, 2 * k + 1]
                    parts.append(sample(part, y_at, x_at) * (1 if mask is None else mask[b, k]))
                points.append(torch.cat(parts))
        sampled = torch.stack(points, 1).unflatten(1, (kh, kw))
        out = [
            torch.einsum('ockl,cklhw->ohw', w, s)
            for w, s in zip(weight.chunk(groups), sampled.chunk(groups), strict=True)
        ]
        images.append(torch.cat(out) + (0 if bias is None else bias[:, None, None]))
    return torch.stack(images)


def leaves(geometry, dtype=torch.float64):
    """Input, offset and mask [2, 8, 7, 9] for ``geometry``, some offsets reaching out of the image."""
    torch.manual_seed(0)
    (kh, kw), stride, padding, dilation, _, offset_groups = geometry
    x = torch.randn(2, 8, 7, 9, dtype=dtype)
    sizes = [
        (side + 2 * p - d * (k - 1) - 1) // s + 1
        for side, k, s, p, d in zip((7, 9), (kh, kw), stride, padding, dilation, strict=True)
    ]
    offset = 2 * torch.randn(2, offset_groups * kh * kw * 2, *sizes, dtype=dtype)
    mask = torch.rand(2, offset_groups * kh * kw, *sizes, dtype=dtype)
    return [leaf.requires_grad_() for leaf in (x, offset, mask)]


def assert_same_with_gradients(actual, expected, inputs):
    torch.testing.assert_close(actual, expected)
    probe = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad((actual * probe).sum(), inputs),
        torch.autograd.grad((expected * probe).sum(), inputs),
        strict=True,
    ):
        assert theirs.abs().sum() > 0
        torch.testing.assert_close(ours, theirs)


def build(layer, geometry, **kwargs):
    kernel, stride, padding, dilation, groups, offset_groups = geometry
    torch.manual_seed(1)
    return layer(8, 4, kernel, stride, padding, dilation, groups, offset_groups, **kwargs).double()


@pytest.mark.parametrize('geometry', GEOMETRIES.values(), ids=GEOMETRIES)
def test_deform_conv(geometry):
    x, offset, _ = leaves(geometry)
    layer = build(DeformConv2d, geometry)
    expected = literal_deform_conv(x, offset, None, layer.weight, None, geometry)
    assert_same_with_gradients(layer(x, offset), expected, (x, offset, layer.weight))


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES.values(), ids=GEOMETRIES)
def test_modulated_deform_conv(geometry, bias):
    x, offset, mask = leaves(geometry)
    layer = build(ModulatedDeformConv2d, geometry, bias=bias)
    inputs = [x, offset, mask, layer.weight]
    if bias:
        torch.nn.init.normal_(layer.bias)
        inputs.append(layer.bias)
    expected = literal_deform_conv(x, offset, mask, layer.weight, layer.bias, geometry)
    assert_same_with_gradients(layer(x, offset, mask), expected, inputs)


@pytest.mark.parametrize('geometry', GEOMETRIES.values(), ids=GEOMETRIES)
def test_without_offsets_it_is_a_convolution(geometry):
    _, stride, padding, dilation, groups, _ = geometry
    x, offset, mask = leaves(geometry)
    plain, modulated = build(DeformConv2d, geometry), build(ModulatedDeformConv2d, geometry)
    expected = F.conv2d(x, plain.weight, None, stride, padding, dilation, groups)
    torch.testing.assert_close(plain(x, torch.zeros_like(offset)), expected)
    expected = F.conv2d(x, modulated.weight, None, stride, padding, dilation, groups)
    torch.testing.assert_close(modulated(x, torch.zeros_like(offset), torch.ones_like(mask)), expected)


def test_gradients_of_a_frozen_input_and_of_a_frozen_weight():
    # mmcv asks for the two kinds of gradients by two functions, each only where it is wanted.
    geometry = GEOMETRIES['plain']
    x, offset, _ = leaves(geometry)
    layer = build(DeformConv2d, geometry)
    both = torch.autograd.grad(layer(x, offset).sum(), (x, offset, layer.weight))
    for frozen, rest in ((x, (offset, layer.weight)), (layer.weight, (x, offset))):
        frozen.requires_grad_(False)
        alone = torch.autograd.grad(layer(x, offset).sum(), rest)
        frozen.requires_grad_(True)
        expected = [g for leaf, g in zip((x, offset, layer.weight), both, strict=True) if leaf is not frozen]
        torch.testing.assert_close(list(alone), expected)


def test_parameter_gradients_are_scaled_and_added():
    # mmcv.ops always passes a scale of 1 and zeroed buffers; the op means both.
    x, offset, _ = (leaf.detach() for leaf in leaves(GEOMETRIES['plain']))
    grad_output, empty = torch.randn(2, 4, 7, 9, dtype=torch.float64), x.new_empty(0)
    sides = dict(kW=3, kH=3, dW=1, dH=1, padW=1, padH=1, dilationW=1, dilationH=1)
    shared = dict(sides, group=1, deformable_group=1, im2col_step=2)
    once, twice = torch.zeros(4, 8, 3, 3, dtype=torch.float64), torch.ones(4, 8, 3, 3, dtype=torch.float64)
    for buffer, scale in ((once, 1.0), (twice, 2.0)):
        mmcv._ext.deform_conv_backward_parameters(
            x, offset, grad_output, buffer, empty, empty, scale=scale, **shared
        )
    torch.testing.assert_close(twice, 1 + 2 * once)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_the_rounded_full_result(dtype):
    geometry = GEOMETRIES['all groups']
    leafs = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves(geometry)]
    layer = build(ModulatedDeformConv2d, geometry).to(dtype)
    twins = [leaf.detach().float().requires_grad_() for leaf in leafs]
    actual = layer(*leafs)
    expected = layer.float()(*twins)
    assert actual.dtype == dtype
    tolerance = dict(rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(actual.float(), expected, **tolerance)
    actual.float().square().sum().backward()
    expected.square().sum().backward()
    for leaf, twin in zip(leafs, twins, strict=True):
        assert leaf.grad.dtype == dtype
        error = (leaf.grad.float() - twin.grad).norm() / twin.grad.norm()
        assert error < 0.02


def test_the_packed_layer_trains_under_autocast():
    torch.manual_seed(0)
    layer = ModulatedDeformConv2dPack(4, 4, 3, padding=1)
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(torch.randn(2, 4, 6, 6))
    assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
