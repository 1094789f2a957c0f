"""Overlaps of boxes: native where the library serves the device, PyTorch elsewhere."""

from typing import Any

import torch
from torch import Tensor

from atss_ext.ops import checks, native, reference
from atss_ext.ops.reference import IoUMode


def batched_box_iou(
    boxes1: Tensor, boxes2: Tensor, mode: IoUMode = 'iou', offsets: Tensor | None = None
) -> Tensor:
    """Overlap of every box with every box, image by image where there are several.

    Args:
        boxes1: [N, 4] or [B, N, 4] xyxy, pixels, any float dtype (half is computed in float32); the
            foreground of 'iof'.
        boxes2: [M, 4], or [B, M, 4]; with ``offsets`` the boxes of all images one after the other, [T, 4].
        mode: 'iou', 'iof' (intersection over ``boxes1``), 'giou' (arXiv 1902.09630), 'diou' or 'ciou'
            (arXiv 1911.08287).
        offsets: [B+1] int64; image b owns ``boxes2[offsets[b]:offsets[b + 1]]``.

    Returns:
        [N, M], or [B, N, M]; with ``offsets`` [N, T], of which columns ``offsets[b]:offsets[b + 1]`` are
        image b's. Zero-area boxes have an IoU of 0, never NaN. Where a gradient is wanted PyTorch computes
        it; :func:`aligned_box_iou` has a native one.

    Raises:
        ValueError: for an unknown mode, or shapes or offsets that do not fit.
    """
    if native.serves(boxes1) and not _wants_grad(boxes1, boxes2):
        return torch.ops.atss_ext.batched_box_iou(boxes1, boxes2, offsets, mode)
    checks.check_batched(boxes1, boxes2, mode, offsets)
    dtype, result = _dtypes(boxes1, boxes2)
    return reference.batched_box_iou(boxes1.to(dtype), boxes2.to(dtype), mode, offsets).to(result)


def aligned_box_iou(boxes1: Tensor, boxes2: Tensor, mode: IoUMode = 'iou') -> Tensor:
    """Overlap of box i with box i, differentiable once.

    The gradient is that of the value, all the way: mmdet's CIoU loss holds alpha constant, this does not.
    :func:`atss_ext.ops.reference.aligned_box_iou` can be differentiated any number of times.

    Args:
        boxes1: [..., 4] xyxy, pixels, any float dtype; half is computed in float32.
        boxes2: shape of ``boxes1``.
        mode: as for :func:`batched_box_iou`.

    Returns:
        [...] overlaps; zero-area pairs have an IoU of 0.

    Raises:
        ValueError: for an unknown mode or shapes that differ.
    """
    if native.serves(boxes1):
        return torch.ops.atss_ext.aligned_box_iou(boxes1, boxes2, mode)
    checks.check_aligned(boxes1, boxes2, mode)
    dtype, result = _dtypes(boxes1, boxes2)
    return reference.aligned_box_iou(boxes1.to(dtype), boxes2.to(dtype), mode).to(result)


def _wants_grad(boxes1: Tensor, boxes2: Tensor) -> bool:
    return torch.is_grad_enabled() and (boxes1.requires_grad or boxes2.requires_grad)


def _dtypes(boxes1: Tensor, boxes2: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """What overlaps are computed in and returned in."""
    result = torch.promote_types(boxes1.dtype, boxes2.dtype)
    return reference.compute_dtype(result), result


def _fake_batched(boxes1: Tensor, boxes2: Tensor, offsets: Tensor | None, mode: str) -> Tensor:
    dtype = torch.promote_types(boxes1.dtype, boxes2.dtype)
    return boxes1.new_empty((*boxes1.shape[-3 if offsets is None else -2 : -1], boxes2.size(-2)), dtype=dtype)


def _fake_aligned(boxes1: Tensor, boxes2: Tensor, mode: str) -> Tensor:
    return boxes1.new_empty(boxes1.shape[:-1], dtype=torch.promote_types(boxes1.dtype, boxes2.dtype))


def _fake_aligned_backward(grad: Tensor, boxes1: Tensor, boxes2: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    return boxes1.new_empty(boxes1.shape), boxes2.new_empty(boxes2.shape)


def _save_boxes(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
    boxes1, boxes2, ctx.mode = inputs
    ctx.save_for_backward(boxes1, boxes2)


def _aligned_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    boxes1, boxes2 = ctx.saved_tensors
    return *torch.ops.atss_ext.aligned_box_iou_backward(grad, boxes1, boxes2, ctx.mode), None


def _aligned_twice(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
    raise NotImplementedError(
        'the native aligned_box_iou can be differentiated once: '
        'use atss_ext.ops.reference.aligned_box_iou for higher derivatives'
    )


if native.available():
    torch.library.register_fake('atss_ext::batched_box_iou', _fake_batched)
    torch.library.register_fake('atss_ext::aligned_box_iou', _fake_aligned)
    torch.library.register_fake('atss_ext::aligned_box_iou_backward', _fake_aligned_backward)
    torch.library.register_autograd('atss_ext::aligned_box_iou', _aligned_backward, setup_context=_save_boxes)
    torch.library.register_autograd('atss_ext::aligned_box_iou_backward', _aligned_twice)
