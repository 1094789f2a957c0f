"""What leaves a segmenter: the best of several proposals, and its mask at the size of the image."""

from collections.abc import Callable

import torch
from torch import Tensor

from atss_ext.vlsam.protocols import Segmentation

# Floats of the size of the image exist for this many pixels at a time (64 MiB), or for one object.
FLOAT_PIXELS = 2**24


def objects_at_once(pixels: int) -> int:
    """How many objects may have floats of ``pixels`` pixels each at the same time."""
    return max(1, FLOAT_PIXELS // max(1, pixels))


def best_proposals(logits: Tensor, ious: Tensor) -> tuple[Tensor, Tensor]:
    """The proposal the segmenter believes in most, the first of equals.

    Chosen by the IoU as predicted, which may exceed one; what is handed on lies within 0..1, and is 0 where
    the model predicts no number (a float16 overflow, say).

    Args:
        logits: [O, C, h, w], C proposals an object.
        ious: [O, C].

    Returns:
        float32 [O, h, w] and float32 [O].
    """
    ious = ious.float().nan_to_num(nan=0.0)
    best = ious.argmax(1)
    rows = torch.arange(len(best), device=best.device)
    return logits[rows, best].float(), ious[rows, best].clamp(0, 1)


def threshold(
    logits: Tensor, size: tuple[int, int], pixels: int, upsample: Callable[[Tensor], Tensor]
) -> Tensor:
    """Masks at the size of the image, without all their floats at once.

    Args:
        logits: float32 [O, h, w].
        size: (H, W) of the image.
        pixels: floats an object needs on the way at most.
        upsample: [n, 1, h, w] -> [n, 1, H, W].

    Returns:
        bool [O, H, W], logits above zero.
    """
    masks = torch.empty(len(logits), *size, dtype=torch.bool, device=logits.device)
    step = objects_at_once(pixels)
    for start in range(0, len(logits), step):
        masks[start : start + step] = upsample(logits[start : start + step, None])[:, 0] > 0
    return masks


def no_objects(size: tuple[int, int], mask_size: tuple[int, int], device: torch.device) -> Segmentation:
    """The segmentation of nothing in an image of ``size``, with mask logits of ``mask_size``."""
    return Segmentation(
        torch.zeros(0, *size, dtype=torch.bool, device=device),
        torch.zeros(0, device=device),
        torch.zeros(0, *mask_size, device=device),
    )
