"""Targets of a whole batch: native where the library serves the device, PyTorch elsewhere."""

import torch
from torch import Tensor

from atss_ext.ops import checks, native, reference
from atss_ext.ops.reference import Targets, without_gradient


def gather_targets(
    priors: Tensor,
    assigned: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    offsets: Tensor,
    num_classes: int,
    pos_weight: float = -1,
) -> Targets:
    """What every prior learns, for all images at once; targets are constants and carry no gradient.

    Args:
        priors: [N, 4] xyxy, pixels.
        assigned: [B, N] int64, as :class:`Assignment` holds it.
        gt_boxes: [T, 4] xyxy, pixels.
        gt_labels: [T] int64.
        offsets: [B+1] int64.
        num_classes: the label of background.
        pos_weight: the weight of positives; <= 0 for 1.

    Returns:
        :class:`Targets`.

    Raises:
        ValueError: for shapes or offsets that do not fit.
    """
    priors, gt_boxes = without_gradient(priors), without_gradient(gt_boxes)
    if native.serves(priors):
        return Targets(
            *torch.ops.atss_ext.gather_targets(
                priors, assigned, gt_boxes, gt_labels, offsets, num_classes, pos_weight
            )
        )
    checks.check_targets(priors, assigned, gt_boxes, gt_labels, offsets)
    return reference.gather_targets(priors, assigned, gt_boxes, gt_labels, offsets, num_classes, pos_weight)


def _fake_gather_targets(
    priors: Tensor,
    assigned: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    offsets: Tensor,
    num_classes: int,
    pos_weight: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = reference.compute_dtype(torch.promote_types(priors.dtype, gt_boxes.dtype))
    floats = priors.new_empty(assigned.shape, dtype=dtype)
    return (
        assigned.new_empty(assigned.shape),
        floats,
        assigned.new_empty(assigned.shape, dtype=torch.bool),
        floats.new_empty((*assigned.shape, 4)),
        torch.empty_like(floats),
        floats.new_empty(()),
    )


if native.available():
    torch.library.register_fake('atss_ext::gather_targets', _fake_gather_targets)
