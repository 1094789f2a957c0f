"""Priors of R50 FPN ATSS and random gts; needs no mmdet."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from atss_ext import ops

STRIDES = (8, 16, 32, 64, 128)
# One square anchor a cell, this many strides long (ATSS section 4.1).
ANCHOR_SCALE = 8


@dataclass(frozen=True)
class Priors:
    """Priors of one image size.

    Attributes:
        boxes: [N, 4] xyxy, pixels, on the device of the run.
        sizes: L counts that sum to N.
        shapes: L pairs (height, width).
        grid: the levels as the grid route takes them.
    """

    boxes: Tensor
    sizes: list[int]
    shapes: list[tuple[int, int]]
    grid: tuple[ops.GridLevel, ...]


def pyramid_priors(image: tuple[int, int], device: str) -> Priors:
    """The anchors mmdet's generator makes for an image of (height, width): 22,400 for 800x1344."""
    shapes = [tuple(math.ceil(side / stride) for side in image) for stride in STRIDES]
    boxes = torch.cat([_level(*shape, stride) for shape, stride in zip(shapes, STRIDES, strict=True)])
    grid = ops.find_grid(boxes, shapes, [1] * len(shapes))
    if grid is None:
        raise RuntimeError(
            f'the priors of an image of {image} are no grid: the benchmark would time another route'
        )
    return Priors(boxes.to(device), [height * width for height, width in shapes], shapes, grid)


def _level(height: int, width: int, stride: int) -> Tensor:
    """[height * width, 4], row by row."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    centers = torch.stack([x, y], -1).reshape(-1, 2).float() * stride
    half = ANCHOR_SCALE * stride / 2
    return torch.cat([centers - half, centers + half], 1)


def random_boxes(count: int, image: tuple[int, int], seed: int, device: str) -> Tensor:
    """Boxes [count, 4] xyxy of 8 to 512 pixels (log-uniform), centres in the image; the same every run."""
    unit = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))
    centers = unit[:, :2] * torch.tensor([image[1], image[0]])
    half = 8 * 64 ** unit[:, 2:] / 2
    return torch.cat([centers - half, centers + half], 1).to(device)


def pack(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """B tensors [M, 4] as the ops take them: boxes [T, 4] and offsets [B+1]."""
    ends = torch.tensor([0, *(len(boxes) for boxes in images)]).cumsum(0)
    return torch.cat(images), ends.to(images[0].device)
