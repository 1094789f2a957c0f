"""Gts against priors a few rows at a time: no [T, N] matrix of a whole batch is ever made."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from atss_ext import ops
from atss_ext.assigners.base import PackedGts
from atss_ext.ops.reference import BoxOverlap, aligned_box_iou, compute_dtype, without_gradient
from atss_ext.ops.reference.assignment import box_iof

# Elements [t, N] of one step: on the CPU its few temporaries stay in the cache, elsewhere (64 MiB in
# float32) steps are long enough to keep a device busy. Results do not depend on it.
CPU_ELEMENTS = 2**18
DEVICE_ELEMENTS = 2**24


class Rows(NamedTuple):
    """Some gts of the batch, one after the other.

    Attributes:
        gts: which of them.
        images: which of the B they may belong to.
        own: [t] int64, the image of every gt, counted within ``images``.
    """

    gts: slice
    images: slice
    own: Tensor


def reads_are_free(device: torch.device) -> bool:
    """Whether the host may look at a value there without waiting for a device."""
    return device.type == 'cpu'


def split_rows(image_ids: Tensor, num_images: int, num_priors: int) -> Iterator[Rows]:
    """Gts of the batch in steps of about :data:`CPU_ELEMENTS` (or more) pairs with priors.

    On the CPU a step knows its images, which costs nothing there; elsewhere it may be of any image.

    Args:
        image_ids: [t] int64, the image of every gt, not decreasing.
        num_images: B.
        num_priors: N.
    """
    total, free = image_ids.numel(), reads_are_free(image_ids.device)
    step = max(1, (CPU_ELEMENTS if free else DEVICE_ELEMENTS) // max(1, num_priors))
    for start in range(0, total, step):
        rows = slice(start, min(start + step, total))
        own = image_ids[rows]
        if free:
            first, last = int(own[0]), int(own[-1]) + 1
            yield Rows(rows, slice(first, last), own - first)
        else:
            yield Rows(rows, slice(0, num_images), own)


def reduce_rows(target: Tensor, rows: Rows, values: Tensor, reduce: str) -> None:
    """``target[image of row] = reduce(itself, row)``, in place; the order of rows does not matter.

    Args:
        target: [B, N] float.
        rows: of ``values``.
        values: [t, N].
        reduce: 'amax' or 'amin'.
    """
    target[rows.images].scatter_reduce_(0, rows.own[:, None].expand_as(values), values, reduce)


def of_images(mask: Tensor, rows: Rows) -> Tensor:
    """[B, N] -> [t, N], each gt the row of its image; a view where all are of one image."""
    part = mask[rows.images]
    return part.expand(len(rows.own), -1) if part.size(0) == 1 else part[rows.own]


def in_one_dtype(priors: Tensor, gts: PackedGts) -> tuple[Tensor, Tensor]:
    """Priors and gt boxes as constants of the dtype they are computed in (half: float32)."""
    dtype = compute_dtype(torch.promote_types(priors.dtype, gts.boxes.dtype))
    return without_gradient(priors).to(dtype), without_gradient(gts.boxes).to(dtype)


def find_ignored(priors: Tensor, gts: PackedGts, iof_thr: float, iof: BoxOverlap = box_iof) -> Tensor | None:
    """Priors with more than ``iof_thr`` of their area in an ignore region: [B, N] bool.

    None where there are no regions or ``iof_thr`` <= 0; an image without gts has none (mmdet).
    """
    if iof_thr <= 0 or gts.ignore_boxes is None or gts.ignore_offsets is None:
        return None
    regions = without_gradient(gts.ignore_boxes).to(priors.dtype)
    return ops.ignored_priors(priors, regions, gts.ignore_offsets, gts.offsets, iof_thr, iof)


def usable_priors(valid: Tensor | None, ignored: Tensor | None) -> Tensor | None:
    """Priors that may become positive: [B, N] bool, None for all."""
    if ignored is None:
        return valid
    return ~ignored if valid is None else valid & ~ignored


def overlaps_of_winners(boxes: Tensor, gt_boxes: Tensor, winner: Tensor) -> Tensor:
    """IoU of every positive prior with its gt, 0 elsewhere: [B, N].

    Args:
        boxes: [N, 4] or [B, N, 4] xyxy, of the priors.
        gt_boxes: [T, 4], T >= 1.
        winner: [B, N] int64, packed gt of every prior, T for none.
    """
    own = gt_boxes[winner.clamp(max=gt_boxes.size(0) - 1)]
    overlaps = aligned_box_iou(boxes, own)
    return overlaps.masked_fill(winner == gt_boxes.size(0), 0)
