"""What the native library refuses, refused in its words where PyTorch runs instead.

The counterpart of ``csrc/arguments.h`` and its neighbours for the fallback and for overlaps that want a
gradient; the native route never comes here, so it costs nothing and stays one graph for a compiler. Letters
as in :mod:`atss_ext.ops.reference`.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from atss_ext.ops.grid import GridLevel, flatten
from atss_ext.ops.reference.boxes import check_mode

MAX_LEVELS = 16
MAX_PRIORS = 2**31 - 1
# Types as the library spells them.
_TYPE_NAMES = {
    torch.uint8: 'Byte',
    torch.int8: 'Char',
    torch.int16: 'Short',
    torch.int32: 'Int',
    torch.int64: 'Long',
    torch.float16: 'Half',
    torch.float32: 'Float',
    torch.float64: 'Double',
    torch.bool: 'Bool',
    torch.bfloat16: 'BFloat16',
}


def check_aligned(boxes1: Tensor, boxes2: Tensor, mode: str) -> None:
    """Refuses what :func:`atss_ext.ops.aligned_box_iou` does not take.

    Raises:
        ValueError: with the offending value, as everywhere in this module.
    """
    check_mode(mode)
    _check_pair(boxes1, boxes2)
    if boxes1.shape != boxes2.shape:
        raise ValueError(f'boxes2 must be {list(boxes1.shape)} like boxes1, got {list(boxes2.shape)}')


def check_batched(boxes1: Tensor, boxes2: Tensor, mode: str, offsets: Tensor | None) -> None:
    """Refuses what :func:`atss_ext.ops.batched_box_iou` does not take."""
    check_mode(mode)
    _check_pair(boxes1, boxes2)
    shapes = list(boxes1.shape), list(boxes2.shape)
    if offsets is not None:
        if boxes2.dim() != 2:
            raise ValueError(f'with offsets, boxes2 must be [T, 4], got {shapes[1]}')
        _check_offsets(offsets, boxes2, 'offsets')
        images = offsets.numel() - 1
        if boxes1.dim() != 2 and not (boxes1.dim() == 3 and boxes1.size(0) == images):
            raise ValueError(
                f'with offsets of {images} images, boxes1 must be [N, 4] or [{images}, N, 4], got {shapes[0]}'
            )
        return
    one_image = boxes1.dim() == 2 and boxes2.dim() == 2
    if not one_image and not (boxes1.dim() == boxes2.dim() == 3 and boxes1.size(0) == boxes2.size(0)):
        raise ValueError(
            f'boxes must be [N, 4] and [M, 4], or [B, N, 4] and [B, M, 4], got {shapes[0]} and {shapes[1]}'
        )


def check_batch(priors: Tensor, gt_boxes: Tensor, offsets: Tensor) -> None:
    """Refuses priors, gts and offsets that are no batch."""
    _check_boxes(priors, 'priors')
    _check_boxes(gt_boxes, 'gt_boxes')
    if priors.dim() != 2:
        raise ValueError(f'priors must be [N, 4], got {list(priors.shape)}')
    if gt_boxes.dim() != 2:
        raise ValueError(f'gt_boxes must be [T, 4], got {list(gt_boxes.shape)}')
    check_same_device(priors, gt_boxes, 'gt_boxes')
    _check_offsets(offsets, gt_boxes, 'offsets')


def check_levels(
    level_sizes: Sequence[int], num_priors: int, k: int, grid: Sequence[GridLevel] | None
) -> None:
    """Refuses levels that do not divide the priors, and a grid that is not that of the levels."""
    sizes = list(level_sizes)
    if not 1 <= len(sizes) <= MAX_LEVELS:
        raise ValueError(f'there must be 1 to {MAX_LEVELS} levels, got {len(sizes)}')
    if any(not 0 <= size <= MAX_PRIORS for size in sizes):
        raise ValueError(f'level sizes must lie in 0 to {MAX_PRIORS}, got {sizes}')
    if sum(sizes) != num_priors:
        raise ValueError(f'level sizes {sizes} add up to {sum(sizes)}, but there are {num_priors} priors')
    if num_priors > MAX_PRIORS:
        raise ValueError(f'an image may have {MAX_PRIORS} priors, got {num_priors}')
    if grid:
        _check_grid(sizes, grid)
    if k < 1:
        raise ValueError(f'k must be at least 1, got {k}')


def check_mask(mask: Tensor | None, name: str, priors: Tensor, offsets: Tensor) -> None:
    """Refuses a mask that is not one bool for every prior of every image."""
    if mask is None:
        return
    shape = [offsets.numel() - 1, priors.size(0)]
    if mask.dtype != torch.bool or list(mask.shape) != shape:
        raise ValueError(f'{name} must be bool {shape} (images, priors), got {described(mask)}')
    check_same_device(priors, mask, name)


def check_regions(
    ignore_boxes: Tensor | None,
    ignore_offsets: Tensor | None,
    iof_thr: float,
    priors: Tensor,
    offsets: Tensor,
) -> None:
    """Refuses ignore regions that do not fit the batch; those that are switched off are not looked at."""
    if ignore_boxes is None or iof_thr <= 0 or ignore_boxes.size(0) == 0:
        return
    _check_boxes(ignore_boxes, 'ignore_boxes')
    if ignore_boxes.dim() != 2:
        raise ValueError(f'ignore_boxes must be [S, 4], got {list(ignore_boxes.shape)}')
    if ignore_offsets is None:
        raise ValueError('ignore_boxes need ignore_offsets, int64 [images + 1]')
    check_same_device(priors, ignore_boxes, 'ignore_boxes')
    _check_offsets(ignore_offsets, ignore_boxes, 'ignore_offsets')
    if ignore_offsets.numel() != offsets.numel():
        raise ValueError(
            f'ignore_offsets must have {offsets.numel()} entries like offsets, got {ignore_offsets.numel()}'
        )


def check_targets(
    priors: Tensor, assigned: Tensor, gt_boxes: Tensor, gt_labels: Tensor, offsets: Tensor
) -> None:
    """Refuses what :func:`atss_ext.ops.gather_targets` does not take."""
    check_batch(priors, gt_boxes, offsets)
    shape = [offsets.numel() - 1, priors.size(0)]
    if assigned.dtype != torch.int64 or list(assigned.shape) != shape:
        raise ValueError(f'assigned must be int64 {shape} (images, priors), got {described(assigned)}')
    if gt_labels.dtype != torch.int64 or list(gt_labels.shape) != [gt_boxes.size(0)]:
        raise ValueError(f'gt_labels must be int64 [{gt_boxes.size(0)}], got {described(gt_labels)}')
    check_same_device(priors, assigned, 'assigned')
    check_same_device(priors, gt_labels, 'gt_labels')


def described(tensor: Tensor) -> str:
    """Type and shape of a tensor, for a sentence."""
    return f'{_type_name(tensor)} {list(tensor.shape)}'


def _type_name(tensor: Tensor) -> str:
    return _TYPE_NAMES.get(tensor.dtype, str(tensor.dtype))


def _check_pair(boxes1: Tensor, boxes2: Tensor) -> None:
    _check_boxes(boxes1, 'boxes1')
    _check_boxes(boxes2, 'boxes2')
    check_same_device(boxes1, boxes2, 'boxes2')


def _check_boxes(boxes: Tensor, name: str) -> None:
    if boxes.dim() < 1 or boxes.size(-1) != 4:
        raise ValueError(f'{name} must be [..., 4], got {list(boxes.shape)}')
    if not boxes.is_floating_point():
        raise ValueError(f'{name} must hold floats, got {_type_name(boxes)}')


def check_same_device(boxes: Tensor, tensor: Tensor, name: str) -> None:
    """Refuses a tensor that is elsewhere than the boxes."""
    if tensor.device != boxes.device:
        raise ValueError(f'{name} is on {tensor.device} and the boxes on {boxes.device}: move one of them')


def _check_offsets(offsets: Tensor, boxes: Tensor, name: str) -> None:
    if offsets.dim() != 1 or offsets.dtype != torch.int64 or offsets.numel() < 2:
        raise ValueError(f'{name} must be int64 [images + 1], got {described(offsets)}')
    check_same_device(boxes, offsets, name)
    # Reading them back would stall a device, and a compiler has no values yet.
    if offsets.device.type != 'cpu' or torch.compiler.is_compiling():
        return
    values = offsets.tolist()
    for before, after in itertools.pairwise(values):
        if before > after:
            raise ValueError(f'{name} must not decrease, got {before} before {after}')
    if values[0] != 0 or values[-1] != boxes.size(0):
        raise ValueError(
            f'{name} must run from 0 to {boxes.size(0)}, the number of boxes, got {values[0]} to {values[-1]}'
        )


def _check_grid(sizes: list[int], grid: Sequence[GridLevel]) -> None:
    if len(grid) != len(sizes):
        raise ValueError(
            'a grid has 3 shape and 5 geometry values a level, '
            f'got {3 * len(grid)} and {5 * len(grid)} for {len(sizes)} levels'
        )
    for index, (size, level) in enumerate(zip(sizes, grid, strict=True)):
        shape, geometry = flatten([level])
        in_range = all(0 <= extent <= MAX_PRIORS for extent in shape) and shape[2] > 0
        if not in_range or math.prod(shape) != size:
            raise ValueError(
                f'level {index} has {size} priors, but its grid is {shape} (height, width, anchors)'
            )
        shown = f'level {index} has [{", ".join(f"{value:g}" for value in geometry)}]'
        if not all(map(math.isfinite, geometry)):
            raise ValueError(f'grid geometry must be finite, {shown}')
        if min(level.stride) <= 0 or level.slack < 0:
            raise ValueError(f'grid strides must be positive and slack not negative, {shown}')
