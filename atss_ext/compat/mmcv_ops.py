"""The functions of ``mmcv._ext``, backed by torchvision.

Names, argument names and in-place outputs are those by which ``mmcv.ops`` (mmcv 2.0 to 2.3) calls its
compiled module, so that stock mmdet runs on an environment without one: ``nms``, ``softnms``,
``roi_align``, ``sigmoid_focal_loss``, ``deform_conv`` and ``modulated_deform_conv`` with their
backward functions. Every other op exists by name and raises when it is called.

Tensors may live on any device torchvision has kernels for. Half precision is accepted everywhere and
computed in float32. Letters: B images, C channels, K boxes or regions, G weight groups, D offset
groups, (kh, kw) the kernel, (oh, ow) the output size.

:mod:`atss_ext.compat.mmcv_finder` puts these functions into ``mmcv._ext``; nothing else imports this.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2
_POOL_MAX = 0
_COMPILED = 'a compiled mmcv (>=2.0.1,<2.2) in place of mmcv-lite, or onedl-mmcv built with its ops'


def populate(module: ModuleType) -> None:
    """Make ``module`` answer like ``mmcv._ext``: the ops below, and :func:`missing_op` for the rest."""
    for op in OPS:
        setattr(module, op.__name__, op)
    module.__getattr__ = missing_op  # type: ignore[method-assign]


def missing_op(name: str) -> Callable[..., NoReturn]:
    """A function for the op ``name`` that raises when it is called.

    ``mmcv.ops`` asserts at import that all of its ops exist, also those a model never calls.

    Raises:
        AttributeError: for names with a leading underscore, by which Python asks a module about itself.
    """
    if name.startswith('_'):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")

    def raise_missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            f'mmcv.ops needs the compiled op {name!r}, which this environment lacks and torchvision does not '
            f'offer: install {_COMPILED}'
        )

    raise_missing.__name__ = raise_missing.__qualname__ = name
    return raise_missing


def get_compiler_version() -> str:
    """What ``mmcv.utils.collect_env`` prints as the compiler of the ops."""
    return f'none (torchvision {torchvision.__version__} through atss_ext)'


def get_compiling_cuda_version() -> str:
    """What ``mmcv.utils.collect_env`` prints as the CUDA version of the ops."""
    return torch.version.cuda or 'not available'


def _full(tensor: Tensor) -> Tensor:
    """``tensor`` in the precision it is computed in: float64 stays, the rest becomes float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


# ---------------------------------------------------------------------------------------------- nms


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: [K, 4] xyxy.
        scores: [K].
        iou_threshold: a box goes when its IoU with a kept, higher-scoring one is above this.
        offset: 0, or 1 for boxes whose width is ``x2 - x1 + 1``.

    Returns:
        Indices of the kept boxes, int64, by descending score.
    """
    boxes = _full(boxes)
    if offset:
        # A pixel-inclusive box is the same box, in continuous coordinates, with its far corner moved out.
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    # mmcv compares in float32: 0.3 as a double would suppress a pair whose IoU is exactly 0.3.
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    return torch.ops.torchvision.nms(boxes, scores.to(boxes), threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al. 2017): overlapping boxes lose score instead of being dropped.

    The highest box is taken, the others decay by ``1 - IoU`` where it reaches the threshold (linear),
    by ``exp(-IoU^2 / sigma)`` (gaussian) or to zero (naive); those below ``min_score`` are dropped.
    Equal scores: the lower index first.

    Args:
        boxes: [K, 4] xyxy.
        scores: [K].
        dets: [K, 5], written in place: the first rows are the kept boxes with their decayed scores.
        iou_threshold: for the linear and the naive method.
        sigma: for the gaussian method.
        min_score: a box whose decayed score is below this is dropped.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: 0 or 1, as in :func:`nms`.

    Returns:
        Indices of the kept boxes, int64, in the order in which they were taken.
    """
    boxes, scores = _full(boxes), _full(scores).clone()
    far = boxes[:, 2:] + offset
    areas = (far - boxes[:, :2]).prod(dim=1)
    rest = torch.arange(len(boxes), device=boxes.device)
    taken: list[int] = []
    while len(rest):
        best = int(rest[scores[rest].argmax()])
        dets[len(taken), :4] = boxes[best]
        dets[len(taken), 4] = scores[best]
        taken.append(best)
        rest = rest[rest != best]
        sides = torch.minimum(far[best], far[rest]) - torch.maximum(boxes[best, :2], boxes[rest, :2])
        inter = sides.clamp(min=0).prod(dim=1)
        # Two empty boxes have no union; they do not overlap.
        ious = (inter / (areas[best] + areas[rest] - inter)).nan_to_num(0.0)
        scores[rest] *= _decay(ious, iou_threshold, sigma, method)
        rest = rest[scores[rest] >= min_score]
    return torch.tensor(taken, dtype=torch.long, device=boxes.device)


def _decay(ious: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """Factors [K] by which Soft-NMS multiplies the scores of boxes with these IoUs."""
    if method == _GAUSSIAN:
        return torch.exp(-(ious**2) / sigma)
    overlapping = 1 - ious if method == _LINEAR else torch.zeros_like(ious)
    return torch.where(ious >= iou_threshold, overlapping, torch.ones_like(ious))


# ---------------------------------------------------------------------------------------- roi_align


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al. 2017) with average pooling, into ``output`` [K, C, height, width].

    Args:
        input: [B, C, h, w].
        rois: [K, 5], image index and xyxy in the coordinates of the image.
        output: written in place.
        argmax_y: for max pooling only.
        argmax_x: for max pooling only.
        aligned_height: output height.
        aligned_width: output width.
        spatial_scale: from the image to ``input``.
        sampling_ratio: samples per bin and axis; 0 takes as many as the bin has pixels.
        pool_mode: 0 max, 1 average.
        aligned: shift by half a pixel.

    Raises:
        RuntimeError: for max pooling, which torchvision does not have.
    """
    _refuse_max_pooling(pool_mode)
    full = _full(input)
    output.copy_(
        torch.ops.torchvision.roi_align(
            full, rois.to(full), spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`roi_align_forward` to ``grad_input`` [B, C, h, w]."""
    _refuse_max_pooling(pool_mode)
    full = _full(grad_output)
    grad_input += torch.ops.torchvision._roi_align_backward(
        full,
        rois.to(full),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )


def _refuse_max_pooling(pool_mode: int) -> None:
    if pool_mode == _POOL_MAX:
        raise RuntimeError(
            "RoIAlign with pool_mode='max' needs the compiled op, because torchvision pools by average only: "
            f"use pool_mode='avg', or install {_COMPILED}"
        )


# ------------------------------------------------------------------------------- sigmoid_focal_loss


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (Lin et al. 2017, equation 5) of every logit, into ``output`` [K, C].

    Args:
        input: [K, C] logits.
        target: [K] int64, the positive class; C (or any value outside 0..C-1) is background.
        weight: [C], a factor for the row by its target, or empty; background has the factor 1.
        output: written in place.
        gamma: focusing exponent.
        alpha: weight of positive logits, negative ones have ``1 - alpha``.
    """
    logits, positive = _full(input), _one_hot(target, input.size(1))
    p = logits.sigmoid()
    # logsigmoid: log(1 - p) is minus infinity from logits of 17 on in float32.
    loss = torch.where(
        positive,
        -alpha * (1 - p) ** gamma * F.logsigmoid(logits),
        -(1 - alpha) * p**gamma * F.logsigmoid(-logits),
    )
    output.copy_(loss * _row_weight(target, weight, logits))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of :func:`sigmoid_focal_loss_forward` by each logit, into ``grad_input`` [K, C]."""
    logits, positive = _full(input), _one_hot(target, input.size(1))
    p = logits.sigmoid()
    slope = torch.where(
        positive,
        -alpha * (1 - p) ** gamma * (1 - p - gamma * p * F.logsigmoid(logits)),
        (1 - alpha) * p**gamma * (p - gamma * (1 - p) * F.logsigmoid(-logits)),
    )
    grad_input.copy_(slope * _row_weight(target, weight, logits))


def _one_hot(target: Tensor, num_classes: int) -> Tensor:
    """[K, C] bool, True at the positive class; rows of background are all False."""
    return target[:, None] == torch.arange(num_classes, device=target.device)


def _row_weight(target: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """[K, 1] factors of the rows. mmcv reads past the end of ``weight`` at background; here it is 1."""
    if not weight.numel():
        return like.new_ones(1)
    foreground = (target >= 0) & (target < weight.numel())
    rows = weight.to(like)[target.clamp(0, weight.numel() - 1)]
    return torch.where(foreground, rows, torch.ones_like(rows))[:, None]


# ------------------------------------------------------------------------------------- deform_conv


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Deformable convolution (Dai et al. 2017), into ``output`` [B, Co, oh, ow].

    Args:
        input: [B, C, h, w].
        weight: [Co, C / G, kh, kw].
        offset: [B, D * kh * kw * 2, oh, ow], (dy, dx) of each kernel point.
        output: written in place.
        columns: unused work space.
        ones: unused work space.
        kW: kernel width, read from ``weight``.
        kH: kernel height, read from ``weight``.
        dW: stride along x.
        dH: stride along y.
        padW: zero padding along x.
        padH: zero padding along y.
        dilationW: dilation along x.
        dilationH: dilation along y.
        group: G.
        deformable_group: D.
        im2col_step: unused; torchvision chooses how many images it takes at once.

    One difference to mmcv: where a sample lies exactly one pixel outside, at the kink of the bilinear
    kernel, mmcv takes zero for the derivative by the offset and torchvision the one towards the image.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_deform_conv(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Gradients of :func:`deform_conv_forward`: added to ``gradInput``, written to ``gradOffset``."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    by_input, _, by_offset, _, _ = _deform_conv_grads(gradOutput, input, weight, offset, None, geometry)
    gradInput += by_input
    gradOffset.copy_(by_offset)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient of :func:`deform_conv_forward` by its weight to ``gradWeight``."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    # The gradient by the weight does not depend on the weight, which mmcv does not hand over here.
    by_weight = _deform_conv_grads(gradOutput, input, gradWeight, offset, None, geometry)[1]
    gradWeight += scale * by_weight


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Modulated deformable convolution (Zhu et al. 2019), into ``output`` [B, Co, oh, ow].

    As :func:`deform_conv_forward`, with ``mask`` [B, D * kh * kw, oh, ow] multiplied to the samples and
    ``bias`` [Co] added (``with_bias``; empty and unread otherwise).
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    output.copy_(_deform_conv(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Gradients of :func:`modulated_deform_conv_forward`.

    Added to ``grad_input``, ``grad_weight`` and (``with_bias``) ``grad_bias``, written to ``grad_offset``
    and ``grad_mask``: what mmcv does with the zeroed buffers it passes.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    by_input, by_weight, by_offset, by_mask, by_bias = _deform_conv_grads(
        grad_output, input, weight, offset, mask, geometry
    )
    grad_input += by_input
    grad_weight += by_weight
    grad_offset.copy_(by_offset)
    grad_mask.copy_(by_mask)
    if with_bias:
        grad_bias += by_bias


def _deform_conv(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
) -> Tensor:
    """torchvision's deformable convolution, [B, Co, oh, ow], in full precision.

    ``geometry``: stride y, x; padding y, x; dilation y, x; weight groups; offset groups.
    """
    full = _full(input)
    bias = full.new_zeros(weight.size(0)) if bias is None else bias.to(full)
    # Without a mask the op still wants a tensor in its place.
    samples = full.new_zeros(full.size(0), 1) if mask is None else mask.to(full)
    return torch.ops.torchvision.deform_conv2d(
        full, weight.to(full), offset.to(full), samples, bias, *geometry, mask is not None
    )


def _deform_conv_grads(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of :func:`_deform_conv` by input, weight, offset, mask and bias, in full precision."""
    full = _full(input)
    samples = full.new_zeros(full.size(0), 1) if mask is None else mask.to(full)
    return torch.ops.torchvision._deform_conv2d_backward(
        grad_output.to(full),
        full,
        weight.to(full),
        offset.to(full),
        samples,
        full.new_zeros(weight.size(0)),
        *geometry,
        mask is not None,
    )


OPS: tuple[Callable[..., Any], ...] = (
    get_compiler_version,
    get_compiling_cuda_version,
    nms,
    softnms,
    roi_align_forward,
    roi_align_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
)
