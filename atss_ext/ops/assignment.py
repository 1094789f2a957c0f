"""ATSS for a whole batch: native where the library serves the device, PyTorch elsewhere."""

from collections.abc import Sequence

import torch
from torch import Tensor

from atss_ext.ops import checks, native, reference
from atss_ext.ops.grid import GridLevel, flatten
from atss_ext.ops.reference import Assignment, Candidates, without_gradient


def center_topk(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    offsets: Tensor,
    k: int,
    valid: Tensor | None = None,
    ignored: Tensor | None = None,
    grid: Sequence[GridLevel] | None = None,
) -> Candidates:
    """The k priors of every level whose centres are nearest (L2) to each gt's centre (ATSS, Alg. 1, l. 3-6).

    No distance matrix is made: memory is that of the result and of the priors' centres. The distances carry
    no gradient.

    Args:
        priors: [N, 4] xyxy, pixels, any float dtype; all levels one after the other.
        level_sizes: L counts that sum to N.
        gt_boxes: [T, 4] xyxy, pixels; the gts of all images one after the other.
        offsets: [B+1] int64; image b owns ``gt_boxes[offsets[b]:offsets[b + 1]]``.
        k: candidates a level; a smaller level gives all it has.
        valid: [B, N] bool; False priors (in the padding, say) can never be candidates.
        ignored: [B, N] bool; True priors come after all others, as in mmdet.
        grid: the levels from :func:`atss_ext.ops.find_grid`; the result is the same without, the cost is
            that of a search.

    Returns:
        :class:`Candidates` with C = sum over levels of min(k, level size): level by level, nearest first;
        of equal distances the lower prior index first.

    Raises:
        ValueError: for k < 1, and sizes, shapes, offsets or a grid that do not fit.
    """
    priors, gt_boxes = without_gradient(priors), without_gradient(gt_boxes)
    if native.serves(priors):
        return Candidates(
            *torch.ops.atss_ext.center_topk(
                priors, level_sizes, gt_boxes, offsets, k, valid, ignored, *flatten(grid)
            )
        )
    checks.check_batch(priors, gt_boxes, offsets)
    checks.check_levels(level_sizes, priors.size(0), k, grid)
    checks.check_mask(valid, 'valid', priors, offsets)
    checks.check_mask(ignored, 'ignored', priors, offsets)
    return reference.center_topk(priors, level_sizes, gt_boxes, offsets, k, valid, ignored)


def atss_assign(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    offsets: Tensor,
    k: int,
    valid: Tensor | None = None,
    ignore_boxes: Tensor | None = None,
    ignore_offsets: Tensor | None = None,
    ignore_iof_thr: float = 0,
    ensure_positive: bool = False,
    grid: Sequence[GridLevel] | None = None,
) -> Assignment:
    """Adaptive training sample selection for a whole batch (ATSS, Algorithm 1).

    An assignment is a choice: nothing it returns carries a gradient, whatever the boxes do.

    Args:
        priors: [N, 4] xyxy, pixels, any float dtype; all levels one after the other.
        level_sizes: L counts that sum to N.
        gt_boxes: [T, 4] xyxy, pixels; the gts of all images one after the other.
        offsets: [B+1] int64; image b owns ``gt_boxes[offsets[b]:offsets[b + 1]]``.
        k: candidates a level.
        valid: [B, N] bool; False priors take no part and come back as -1.
        ignore_boxes: [S, 4] xyxy, packed over the batch: regions whose priors are neither positive nor
            negative.
        ignore_offsets: [B+1] int64.
        ignore_iof_thr: priors with more than this share of their area in an ignore region come back as -1
            unless positive; <= 0 switches regions off. An image without gts has only background (mmdet).
        ensure_positive: give every gt at least one positive as far as priors suffice; see
            :func:`atss_ext.ops.reference.assignment.ensure_positives`.
        grid: as for :func:`center_topk`.

    Returns:
        :class:`Assignment`.

    Raises:
        ValueError: for k < 1, and sizes, shapes, offsets or a grid that do not fit.
    """
    priors, gt_boxes = without_gradient(priors), without_gradient(gt_boxes)
    if ignore_boxes is not None:
        ignore_boxes = without_gradient(ignore_boxes)
    arguments = (
        priors,
        level_sizes,
        gt_boxes,
        offsets,
        k,
        valid,
        ignore_boxes,
        ignore_offsets,
        ignore_iof_thr,
        ensure_positive,
    )
    if native.serves(priors):
        return Assignment(*torch.ops.atss_ext.atss_assign(*arguments, *flatten(grid)))
    checks.check_batch(priors, gt_boxes, offsets)
    checks.check_levels(level_sizes, priors.size(0), k, grid)
    checks.check_mask(valid, 'valid', priors, offsets)
    checks.check_regions(ignore_boxes, ignore_offsets, ignore_iof_thr, priors, offsets)
    return reference.atss_assign(*arguments)


def _dtype(priors: Tensor, gt_boxes: Tensor) -> torch.dtype:
    return reference.compute_dtype(torch.promote_types(priors.dtype, gt_boxes.dtype))


def _fake_center_topk(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    offsets: Tensor,
    k: int,
    valid: Tensor | None,
    ignored: Tensor | None,
    grid_shapes: Sequence[int],
    grid_geometry: Sequence[float],
) -> tuple[Tensor, Tensor]:
    shape = (gt_boxes.size(0), sum(min(k, size) for size in level_sizes))
    return offsets.new_empty(shape), priors.new_empty(shape, dtype=_dtype(priors, gt_boxes))


def _fake_atss_assign(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    offsets: Tensor,
    k: int,
    valid: Tensor | None,
    ignore_boxes: Tensor | None,
    ignore_offsets: Tensor | None,
    ignore_iof_thr: float,
    ensure_positive: bool,
    grid_shapes: Sequence[int],
    grid_geometry: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape, num_gts = (offsets.size(0) - 1, priors.size(0)), gt_boxes.size(0)
    dtype = _dtype(priors, gt_boxes)
    return (
        offsets.new_empty(shape),
        priors.new_empty(shape, dtype=dtype),
        priors.new_empty(num_gts, dtype=dtype),
        offsets.new_empty(num_gts),
    )


if native.available():
    torch.library.register_fake('atss_ext::center_topk', _fake_center_topk)
    torch.library.register_fake('atss_ext::atss_assign', _fake_atss_assign)
