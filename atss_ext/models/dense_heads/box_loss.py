"""The box loss of one level, over all its priors: what is not positive is masked instead of filtered."""

from typing import Any

import torch
from torch import Tensor


def masked_box_loss(
    loss: Any,
    coder: Any,
    deltas: Tensor,
    priors: Tensor,
    boxes: Tensor,
    positive: Tensor,
    weights: Tensor,
    decoded: bool,
) -> Tensor:
    """Sum of the weighted losses of positive priors.

    Args:
        loss: mmdet's; of boxes or of deltas.
        coder: mmdet's, of ``deltas``.
        deltas: [n, 4], predicted.
        priors: [n, 4] xyxy.
        boxes: [n, 4] xyxy, wanted; where a prior is not positive, any with an extent.
        positive: [n] bool.
        weights: [n].
        decoded: whether ``loss`` compares boxes instead of deltas.

    Returns:
        A scalar, not divided by anything.
    """
    # Masked before decoding: whatever a background location predicts, its gradient is exactly zero. What
    # stands in for it decodes to its prior, or to a point, at which no IoU loss's gradient is infinite.
    deltas = torch.where(positive[:, None], deltas, torch.zeros_like(deltas))
    predicted = coder.decode(priors, deltas) if decoded else deltas
    wanted = boxes if decoded else coder.encode(priors, boxes)
    # Reduced here: mmdet's IoU losses read their weights back to the host before reducing them.
    values = loss(predicted, wanted, reduction_override='none')
    if values.dim() == 2:  # a loss of deltas has a value for each of the four
        values = values.sum(1)
    return torch.where(positive, values * weights, torch.zeros_like(values)).sum()
