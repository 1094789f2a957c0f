"""Which priors take part in the assignment of which image."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor


def valid_priors(
    prior_generator: Any,
    priors: Tensor,
    shapes: Sequence[tuple[int, int]],
    metas: Sequence[dict],
    allowed_border: float,
) -> Tensor | None:
    """Priors that mmdet would hand to its assigner, for all images at once.

    A prior is left out where its location lies beyond the image's own padded area (images of a batch
    differ in size), and, with ``allowed_border >= 0``, where it sticks out of the image by that much or
    more.

    Args:
        prior_generator: mmdet's, for strides and anchors per location.
        priors: [N, 4] xyxy, pixels.
        shapes: L pairs (height, width) of the feature maps.
        metas: B dicts with ``pad_shape`` and ``img_shape`` (height, width).
        allowed_border: pixels; negative switches the second rule off.

    Returns:
        [B, N] bool, or None when every prior takes part.
    """
    extents = [
        [_extent(meta['pad_shape'], s, sh) for meta in metas]
        for s, sh in zip(prior_generator.strides, shapes, strict=True)
    ]
    full = all(extent == shape for level, shape in zip(extents, shapes, strict=True) for extent in level)
    valid = None if full else _grid_mask(extents, shapes, prior_generator.num_base_priors, priors.device)
    if allowed_border < 0:
        return valid
    sizes = torch.tensor([tuple(meta['img_shape'][:2]) for meta in metas], dtype=priors.dtype)
    limit = sizes.to(priors.device, non_blocking=True).flip(1) + allowed_border  # [B, 2] (x, y)
    inside = (priors[:, :2] >= -allowed_border).all(1) & (priors[None, :, 2:] < limit[:, None]).all(2)
    return inside if valid is None else inside & valid


def _extent(pad_shape: Sequence[int], stride: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a feature map that cover the image's own padded area; ``stride`` is (w, h)."""
    return min(ceil(pad_shape[0] / stride[1]), shape[0]), min(ceil(pad_shape[1] / stride[0]), shape[1])


def _grid_mask(
    extents: list[list[tuple[int, int]]],
    shapes: Sequence[tuple[int, int]],
    anchors: Sequence[int],
    device: torch.device,
) -> Tensor:
    """[B, N] bool from L x B extents (rows, columns)."""
    masks = []
    for level, (height, width), count in zip(extents, shapes, anchors, strict=True):
        extent = torch.tensor(level).to(device, non_blocking=True)  # [B, 2]
        rows = torch.arange(height, device=device) < extent[:, :1]
        columns = torch.arange(width, device=device) < extent[:, 1:]
        grid = rows[:, :, None] & columns[:, None, :]
        masks.append(grid.flatten(1).repeat_interleave(count, dim=1))
    return torch.cat(masks, dim=1)
