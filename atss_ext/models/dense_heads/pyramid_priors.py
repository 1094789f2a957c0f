"""The priors of all levels of a feature pyramid, made once a feature shape."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atss_ext.ops import GridLevel, find_grid


@dataclass(frozen=True)
class PyramidPriors:
    """Priors of one set of feature maps, shared by all images.

    Attributes:
        levels: L tensors [n, 4] xyxy, pixels.
        boxes: [N, 4], all levels one after the other.
        sizes: L counts that sum to N.
        grid: what makes the levels grids, or None where one is something else.
    """

    levels: tuple[Tensor, ...]
    boxes: Tensor
    sizes: list[int]
    grid: tuple[GridLevel, ...] | None

    @classmethod
    def generate(
        cls, prior_generator: Any, shapes: tuple[tuple[int, int], ...], device: torch.device
    ) -> 'PyramidPriors':
        """Makes the priors of feature maps of these (height, width), on the host: nothing waits for a device.

        Args:
            prior_generator: mmdet's.
            shapes: L pairs.
            device: where they are wanted.
        """
        levels = prior_generator.grid_priors(list(shapes), device='cpu')
        sizes = [len(level) for level in levels]
        boxes = torch.cat(levels)
        grid = find_grid(boxes, shapes, prior_generator.num_base_priors)
        boxes = boxes.to(device, non_blocking=True)
        return cls(boxes.split(sizes), boxes, sizes, grid)
