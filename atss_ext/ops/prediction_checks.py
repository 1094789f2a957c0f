"""What ``csrc/prediction_arguments.h`` refuses, refused in its words where PyTorch runs instead."""

import torch
from torch import Tensor

from atss_ext.ops.checks import check_batch, check_mask, check_same_device, described


def check_task_aligned(
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
) -> None:
    """Refuses what :func:`atss_ext.ops.task_aligned_assign` does not take.

    Raises:
        ValueError: with the offending value, as everywhere in this module.
    """
    _check_predictions(priors, scores, boxes, gt_boxes, gt_labels, offsets, valid, topk)
    if not (alpha >= 0 and beta > 0):
        raise ValueError(f'alpha must be at least 0 and beta above 0, got {alpha:g} and {beta:g}')


def check_dynamic_k(
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
) -> None:
    """Refuses what :func:`atss_ext.ops.dynamic_k_assign` does not take."""
    _check_predictions(points, scores, boxes, gt_boxes, gt_labels, offsets, valid, topk)
    if gt_centers is not None:
        shape = [gt_boxes.size(0), 2]
        if not gt_centers.is_floating_point() or list(gt_centers.shape) != shape:
            raise ValueError(f'gt_centers must be floats {shape}, got {described(gt_centers)}')
        check_same_device(points, gt_centers, 'gt_centers')
    if not (radius >= 0 and iou_weight >= 0 and cls_weight >= 0):
        raise ValueError(
            f'radius and weights must not be negative, got {radius:g}, {iou_weight:g} and {cls_weight:g}'
        )
    if rule not in ('sim_ota', 'soft_label'):
        raise ValueError(f"rule must be sim_ota or soft_label, got '{rule}'")
    if rule == 'soft_label' and not are_logits:
        raise ValueError('soft_label needs logits, not probabilities')


def _check_predictions(
    priors: Tensor,
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    offsets: Tensor,
    valid: Tensor | None,
    topk: int,
) -> None:
    check_batch(priors, gt_boxes, offsets)
    shape = offsets.numel() - 1, priors.size(0)
    sizes = f'{shape[0]}, {shape[1]}'
    if not scores.is_floating_point() or scores.dim() != 3 or scores.shape[:2] != shape or not scores.size(2):
        raise ValueError(
            f'scores must be floats [{sizes}, C] (images, priors, classes), got {described(scores)}'
        )
    if not boxes.is_floating_point() or boxes.shape != (*shape, 4):
        raise ValueError(f'boxes must be floats [{sizes}, 4] (images, priors), got {described(boxes)}')
    check_same_device(priors, scores, 'scores')
    check_same_device(priors, boxes, 'boxes')
    check_same_device(priors, gt_labels, 'gt_labels')
    _check_labels(gt_labels, gt_boxes.size(0), scores.size(2))
    if topk < 1:
        raise ValueError(f'topk must be at least 1, got {topk}')
    check_mask(valid, 'valid', priors, offsets)


def _check_labels(gt_labels: Tensor, num_gts: int, num_classes: int) -> None:
    if gt_labels.dtype != torch.int64 or list(gt_labels.shape) != [num_gts]:
        raise ValueError(f'gt_labels must be int64 [{num_gts}], got {described(gt_labels)}')
    # Reading them back would stall a device, and a compiler has no values yet.
    if gt_labels.device.type != 'cpu' or torch.compiler.is_compiling():
        return
    for label in gt_labels.tolist():
        if not 0 <= label < num_classes:
            raise ValueError(
                f'gt_labels must lie in 0 to {num_classes - 1}, the classes that have scores, got {label}'
            )
