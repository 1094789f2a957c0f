"""The priors of all levels of a feature pyramid, made once a feature shape."""

from typing import Any

import torch

from atss_ext.assigners import PyramidPriors
from atss_ext.ops import find_grid


def generate_priors(
    prior_generator: Any, shapes: tuple[tuple[int, int], ...], device: torch.device
) -> PyramidPriors:
    """Makes the priors of feature maps of these (height, width), on the host: nothing waits for a device.

    Args:
        prior_generator: mmdet's.
        shapes: L pairs.
        device: where they are wanted.
    """
    levels = prior_generator.grid_priors(list(shapes), device='cpu')
    boxes = torch.cat(levels)
    anchors = prior_generator.num_base_priors
    return PyramidPriors(
        boxes.to(device, non_blocking=True),
        [len(level) for level in levels],
        per_location=anchors[0],
        grid=find_grid(boxes, shapes, anchors),
        strides=prior_generator.strides,
    )
