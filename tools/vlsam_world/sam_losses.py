"""What the small SAM is trained with: focal and dice loss of the best proposal, and its IoU head's error.

"Segment Anything" (Kirillov et al., arXiv 2304.02643), section 3 and appendix A: focal and dice loss in the
ratio 20 : 1, the least loss over the proposals alone is learned from, and the IoU head regresses the IoU of
each proposal with the object.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Losses(NamedTuple):
    """Of one call of the decoder, scalars."""

    mask: Tensor
    iou: Tensor


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., arXiv 1708.02002, eq. 4), the mean over the pixels.

    Args:
        logits: [..., H, W].
        targets: float, of a shape that broadcasts: 1 on the object.
        gamma: 0 gives binary cross-entropy.

    Returns:
        [...].
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, targets.expand_as(logits), reduction='none')
    return (entropy * (1 - torch.exp(-entropy)) ** gamma if gamma else entropy).mean(dim=(-2, -1))


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """One minus the dice coefficient of probabilities and object, one pixel added to both sides.

    Args:
        logits: [..., H, W].
        targets: float, of a shape that broadcasts.

    Returns:
        [...].
    """
    shares = logits.sigmoid()
    common = (shares * targets).sum(dim=(-2, -1))
    total = shares.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1))
    return 1 - (2 * common + 1) / (total + 1)


@torch.no_grad()
def mask_ious(masks: Tensor, targets: Tensor) -> Tensor:
    """IoU of masks and objects.

    Args:
        masks: bool [..., H, W].
        targets: bool, of a shape that broadcasts.

    Returns:
        float32 [...]; 0 of two empty ones.
    """
    common = (masks & targets).sum(dim=(-2, -1))
    return common / (masks | targets).sum(dim=(-2, -1)).clamp(min=1)


def sam_losses(
    logits: Tensor, predicted: Tensor, targets: Tensor, focal_weight: float = 20.0, gamma: float = 2.0
) -> Losses:
    """The losses of O objects with C proposals each.

    Args:
        logits: [O, C, H, W].
        predicted: [O, C], IoUs.
        targets: bool [O, H, W].
        focal_weight: of the focal loss beside the dice loss.
        gamma: of the focal loss.

    Returns:
        the mean over the objects of the best proposal's focal and dice loss; the mean squared error of the
        predicted IoUs of all proposals.
    """
    wanted = targets[:, None].to(logits.dtype)
    each = focal_weight * focal_loss(logits, wanted, gamma) + dice_loss(logits, wanted)
    actual = mask_ious(logits > 0, targets[:, None])
    return Losses(each.amin(dim=1).mean(), functional.mse_loss(predicted, actual))
