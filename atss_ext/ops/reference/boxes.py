"""Centres and overlaps of boxes in plain PyTorch; differentiable, and the oracle of ``csrc/box_iou.h``."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

IoUMode = Literal['iou', 'iof', 'giou', 'diou', 'ciou']
MODES = get_args(IoUMode)  # here, because older compilers do not trace it
# Keeps 0/0 out of overlaps of zero-area boxes (mmdet's ``bbox_overlaps``).
IOU_EPS = 1e-6


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype an assignment is computed in: float64 stays, all else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def box_centers(boxes: Tensor) -> Tensor:
    """Centres of xyxy boxes: [..., 4] -> [..., 2] (x, y)."""
    return (boxes[..., :2] + boxes[..., 2:4]) / 2


def without_gradient(boxes: Tensor) -> Tensor:
    """The same boxes as a constant: what is assigned or learned from them is no function to differentiate."""
    return boxes.detach() if boxes.requires_grad else boxes


def check_mode(mode: str) -> None:
    """Refuses an unknown overlap.

    Raises:
        ValueError: naming it.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be iou, iof, giou, diou or ciou, got '{mode}'")


def box_area(boxes: Tensor) -> Tensor:
    """Areas of xyxy boxes: [..., 4] -> [...], pixels squared."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _center_penalty(boxes1: Tensor, boxes2: Tensor, enclosing: Tensor) -> Tensor:
    """Squared centre distance over the enclosing box's squared diagonal (DIoU, arXiv 1911.08287 eq. 6)."""
    offset = (boxes1[..., :2] + boxes1[..., 2:] - boxes2[..., :2] - boxes2[..., 2:]) / 2
    return offset.square().sum(-1) / enclosing.square().sum(-1).clamp(min=IOU_EPS)


def _aspect_penalty(boxes1: Tensor, boxes2: Tensor, iou: Tensor) -> Tensor:
    """Alpha v, how far the aspect ratios differ (CIoU, arXiv 1911.08287 eq. 8-11)."""
    angles = [
        torch.atan((b[..., 2] - b[..., 0]) / (b[..., 3] - b[..., 1]).clamp(min=IOU_EPS))
        for b in (boxes1, boxes2)
    ]
    v = 4 / math.pi**2 * (angles[1] - angles[0]).square()
    return v * v / (1 - iou + v).clamp(min=IOU_EPS)


def aligned_box_iou(boxes1: Tensor, boxes2: Tensor, mode: IoUMode = 'iou') -> Tensor:
    """Overlap of boxes that broadcast against each other.

    IoU, IoF and GIoU go operation by operation as mmdet's ``bbox_overlaps``.

    Args:
        boxes1: [..., 4] xyxy, pixels; the foreground of 'iof'.
        boxes2: [..., 4] xyxy, pixels.
        mode: 'iou', 'iof' (intersection over ``boxes1``), 'giou', 'diou' or 'ciou'.

    Returns:
        [...] overlaps, at most 1; a zero-area pair has an IoU of 0.

    Raises:
        ValueError: for an unknown mode.
    """
    check_mode(mode)
    area1, area2 = box_area(boxes1), box_area(boxes2)
    size = torch.minimum(boxes1[..., 2:], boxes2[..., 2:]) - torch.maximum(boxes1[..., :2], boxes2[..., :2])
    size = size.clamp(min=0)
    overlap = size[..., 0] * size[..., 1]
    if mode == 'iof':
        return overlap / area1.clamp(min=IOU_EPS)
    union = (area1 + area2 - overlap).clamp(min=IOU_EPS)
    iou = overlap / union
    if mode == 'iou':
        return iou
    sides = torch.maximum(boxes1[..., 2:], boxes2[..., 2:]) - torch.minimum(boxes1[..., :2], boxes2[..., :2])
    if mode == 'giou':  # arXiv 1902.09630, Algorithm 1
        enclosing = (sides[..., 0] * sides[..., 1]).clamp(min=IOU_EPS)
        return iou - (enclosing - union) / enclosing
    diou = iou - _center_penalty(boxes1, boxes2, sides)
    return diou if mode == 'diou' else diou - _aspect_penalty(boxes1, boxes2, iou)


def batched_box_iou(
    boxes1: Tensor, boxes2: Tensor, mode: IoUMode = 'iou', offsets: Tensor | None = None
) -> Tensor:
    """Overlap of every box with every box; see :func:`atss_ext.ops.batched_box_iou`."""
    if offsets is None or boxes1.dim() == 2:
        return aligned_box_iou(boxes1[..., :, None, :], boxes2[..., None, :, :], mode)
    rows = boxes1[gt_image_ids(offsets, boxes2.size(0))]  # [T, N, 4]
    return aligned_box_iou(rows.transpose(0, 1), boxes2, mode)


def gt_image_ids(offsets: Tensor, num_gts: int) -> Tensor:
    """The image of every packed gt: offsets [B+1] -> [T] int64, without reading ``offsets`` back."""
    gt = torch.arange(num_gts, device=offsets.device)
    return torch.searchsorted(offsets[1:].contiguous(), gt, right=True)
