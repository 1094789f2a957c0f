"""Assignment by predicted scores and boxes: native on the CPU, PyTorch elsewhere."""

import torch
from torch import Tensor

from atss_ext.ops import native, reference
from atss_ext.ops.prediction_checks import check_dynamic_k, check_task_aligned
from atss_ext.ops.reference import AlignedAssignment, CostRule, DynamicAssignment, without_gradient

_ALIGNED, _DYNAMIC = 'atss_ext::task_aligned_assign', 'atss_ext::dynamic_k_assign'
# A library built before the ops came has none.
_KNOWN = native.available() and hasattr(torch.ops.atss_ext, 'dynamic_k_assign')


def _serves(tensor: Tensor) -> bool:
    """Whether the library has kernels: for the CPU alone."""
    return _KNOWN and native.serves(tensor) and tensor.device.type == 'cpu'


def task_aligned_assign(
    priors: Tensor,
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    offsets: Tensor,
    valid: Tensor | None = None,
    topk: int = 13,
    alpha: float = 1,
    beta: float = 6,
    are_logits: bool = True,
) -> AlignedAssignment:
    """TOOD's assignment of a batch (arXiv 2108.07755, section 3.3); nothing carries a gradient.

    Every gt takes the ``topk`` priors of its image with the highest score^alpha x IoU^beta, as far as that is
    above 0 and their centre lies more than 0.01 pixels inside it. A prior that several gts take goes to the
    one with the highest IoU. Of equal metrics the lower prior wins, of equal IoUs the lower gt. NaN never
    does.

    Args:
        priors: [N, 4] xyxy, pixels.
        scores: [B, N, C]; read where they lie, whatever their type and strides.
        boxes: [B, N, 4] xyxy, pixels, predicted.
        gt_boxes: [T, 4] xyxy, pixels, packed.
        gt_labels: [T] int64, 0 to C-1.
        offsets: [B+1] int64; image b owns gts ``offsets[b]`` to ``offsets[b + 1]``.
        valid: [B, N] bool, False for priors that take no part; they come back as -1.
        topk: priors a gt takes at most.
        alpha: exponent of the score, at least 0.
        beta: exponent of the IoU, above 0.
        are_logits: whether the sigmoid of scores is still to be taken; probabilities count as the nearest of
            [0, 1].

    Returns:
        :class:`AlignedAssignment`; float64 where an argument is, else float32.

    Raises:
        ValueError: for shapes, types, labels or numbers that do not fit.
    """
    priors, scores, boxes, gt_boxes = map(without_gradient, (priors, scores, boxes, gt_boxes))
    arguments = priors, scores, boxes, gt_boxes, gt_labels, offsets, valid, topk, alpha, beta, are_logits
    if _serves(scores):
        return AlignedAssignment(*torch.ops.atss_ext.task_aligned_assign(*arguments))
    check_task_aligned(*arguments[:-1])
    return reference.task_aligned_assign(*arguments)


def dynamic_k_assign(
    points: Tensor,
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    offsets: Tensor,
    rule: CostRule,
    topk: int,
    radius: float,
    iou_weight: float = 3.0,
    cls_weight: float = 1.0,
    valid: Tensor | None = None,
    gt_centers: Tensor | None = None,
    are_logits: bool = True,
) -> DynamicAssignment:
    """Assignment of a batch by cost, SimOTA's or RTMDet's; nothing carries a gradient.

    A gt takes the k candidates of least cost, k being the sum of its ``topk`` highest IoUs, rounded down, at
    least 1. A candidate that several gts take goes to the gt of its image for which it costs least. Of equal
    costs the lower prior wins, then the lower gt. NaN never does.

    'sim_ota' (YOLOX, arXiv 2107.08430): candidates lie inside a gt or within ``radius`` strides of a centre;
    cost = cls_weight x cross entropy + iou_weight x -log(IoU), + 1e5 where a prior is not both for that gt.
    'soft_label' (RTMDet, arXiv 2212.07784, section 3.4): candidates lie inside a gt; cost = soft cross
    entropy + iou_weight x -log(IoU) + 10^(distance in strides - radius).

    Args:
        points: [N, 4], centre and stride of every prior (x, y, stride x, stride y), pixels.
        scores: [B, N, C]; read where they lie, whatever their type and strides.
        boxes: [B, N, 4] xyxy, pixels, predicted.
        gt_boxes: [T, 4] xyxy, pixels, packed.
        gt_labels: [T] int64, 0 to C-1.
        offsets: [B+1] int64.
        rule: 'sim_ota' or 'soft_label'.
        topk: IoUs that are added up.
        radius: in strides, as the rule uses it.
        iou_weight: at least 0.
        cls_weight: at least 0; of 'sim_ota' alone.
        valid: [B, N] bool, False for priors that take no part; they come back as -1.
        gt_centers: [T, 2], where 'soft_label' is to measure from; the middle of the boxes where None.
        are_logits: whether the sigmoid of scores is still to be taken; 'soft_label' needs logits.

    Returns:
        :class:`DynamicAssignment`; float64 where an argument is, else float32.

    Raises:
        ValueError: for shapes, types, labels or numbers that do not fit.
    """
    points, scores, boxes, gt_boxes = map(without_gradient, (points, scores, boxes, gt_boxes))
    arguments = (
        points,
        scores,
        boxes,
        gt_boxes,
        gt_labels,
        gt_centers,
        offsets,
        valid,
        rule,
        topk,
        radius,
        iou_weight,
        cls_weight,
        are_logits,
    )
    if _serves(scores):
        return DynamicAssignment(*torch.ops.atss_ext.dynamic_k_assign(*arguments))
    check_dynamic_k(*arguments)
    return reference.dynamic_k_assign(
        points,
        scores,
        boxes,
        gt_boxes,
        gt_labels,
        offsets,
        rule,
        topk,
        radius,
        iou_weight,
        cls_weight,
        valid,
        gt_centers,
        are_logits,
    )


def _empty(scores: Tensor, offsets: Tensor, *boxes: Tensor) -> tuple[Tensor, Tensor]:
    dtype = reference.widest_dtype(scores, *boxes)
    return offsets.new_empty(scores.shape[:2]), boxes[0].new_empty(scores.shape[:2], dtype=dtype)


def _fake_task_aligned(
    priors: Tensor,
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    offsets: Tensor,
    valid: Tensor | None,
    topk: int,
    alpha: float,
    beta: float,
    are_logits: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    assigned, ious = _empty(scores, offsets, priors, boxes, gt_boxes)
    return assigned, ious, torch.empty_like(ious)


def _fake_dynamic_k(
    points: Tensor,
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_centers: Tensor | None,
    offsets: Tensor,
    valid: Tensor | None,
    rule: str,
    topk: int,
    radius: float,
    iou_weight: float,
    cls_weight: float,
    are_logits: bool,
) -> tuple[Tensor, Tensor]:
    return _empty(scores, offsets, points, boxes, gt_boxes)


if _KNOWN:
    torch.library.register_fake(_ALIGNED, _fake_task_aligned)
    torch.library.register_fake(_DYNAMIC, _fake_dynamic_k)
