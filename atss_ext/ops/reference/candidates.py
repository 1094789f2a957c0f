"""The nearest priors of every gt in plain PyTorch (ATSS, Algorithm 1, lines 3-6)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from atss_ext.ops.reference.boxes import box_centers, compute_dtype, gt_image_ids

# The distance given to priors inside an ignore region: behind every real one, still selectable (mmdet).
IGNORED_DISTANCE = 1e8
# Entries of a distance matrix held at a time, so that memory does not grow with T x N.
DISTANCE_CHUNK = 1 << 22


class Candidates(NamedTuple):
    """The nearest priors of every gt, level by level and nearest first.

    Attributes:
        prior_index: [T, C] int64, index of the prior within the image; 0 where not ``valid``.
        distances: [T, C], between centres, pixels; inf where a level has fewer usable priors than asked
            for, ``IGNORED_DISTANCE`` for a prior in an ignore region.
    """

    prior_index: Tensor
    distances: Tensor

    @property
    def valid(self) -> Tensor:
        """[T, C] bool: whether there is a prior in that place."""
        return self.distances < float('inf')


def _nearest(distances: Tensor, k: int) -> Tensor:
    """Indices [T, k] of the k smallest of ``distances`` [T, n] >= 0; of equal ones the lower index.

    ``torch.topk`` leaves the order of ties open. The bits of a non-negative float32 order like an
    integer, so distance and index packed into one int64 make every key unique.
    """
    if distances.dtype == torch.float64:
        return distances.sort(dim=1, stable=True).indices[:, :k]
    column = torch.arange(distances.size(1), device=distances.device)
    keys = (distances.view(torch.int32).to(torch.int64) << 32) | column
    return keys.topk(k, dim=1, largest=False, sorted=True).values & 0xFFFFFFFF


def _level_candidates(
    prior_centers: Tensor,
    gt_centers: Tensor,
    image_ids: Tensor,
    k: int,
    valid: Tensor | None,
    ignored: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """:func:`center_topk` on one level: indices within the level and distances, [T, k] each."""
    squared = (prior_centers[None] - gt_centers[:, None]).square_().sum(-1)  # [T, n]
    if ignored is not None:
        squared.masked_fill_(ignored[image_ids], IGNORED_DISTANCE**2)
    if valid is not None:
        squared.masked_fill_(~valid[image_ids], float('inf'))
    nearest = _nearest(squared, k)
    return nearest, squared.gather(1, nearest).sqrt()


def center_topk(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    offsets: Tensor,
    k: int,
    valid: Tensor | None = None,
    ignored: Tensor | None = None,
) -> Candidates:
    """The k nearest priors of every level; arguments and result of :func:`atss_ext.ops.center_topk`."""
    dtype = compute_dtype(torch.promote_types(priors.dtype, gt_boxes.dtype))
    prior_centers, gt_centers = box_centers(priors.to(dtype)), box_centers(gt_boxes.to(dtype))
    image_ids = gt_image_ids(offsets, gt_boxes.size(0))
    index, distances, start = [], [], 0
    for size in level_sizes:
        level = slice(start, start + size)
        rows = max(1, DISTANCE_CHUNK // max(1, size))
        for_gts = [
            _level_candidates(
                prior_centers[level],
                centers,
                images,
                min(k, size),
                None if valid is None else valid[:, level],
                None if ignored is None else ignored[:, level],
            )
            for centers, images in zip(gt_centers.split(rows), image_ids.split(rows), strict=True)
        ]
        index.append(torch.cat([nearest for nearest, _ in for_gts]) + start)
        distances.append(torch.cat([distance for _, distance in for_gts]))
        start += size
    found = Candidates(torch.cat(index, 1), torch.cat(distances, 1))
    return Candidates(found.prior_index.masked_fill(~found.valid, 0), found.distances)
