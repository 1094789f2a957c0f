"""Assignment by the place and the size of gts (FCOS, arXiv 1904.01355)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmdet.models.task_modules import AssignResult
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.assigners import rows
from atss_ext.assigners.base import (
    AssignmentError,
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
    check_valid,
    require_strides,
    to_mmdet,
)
from atss_ext.assigners.per_image import read_call
from atss_ext.assigners.rows import in_one_dtype, overlaps_of_winners
from atss_ext.ops.reference import box_centers
from atss_ext.ops.reference.assignment import CENTER_MARGIN, to_assigned
from atss_ext.ops.reference.boxes import box_area
from atss_ext.registry import TASK_UTILS

INF = float('inf')
Range = tuple[float, float]


@TASK_UTILS.register_module()
class SpatialScaleAssigner:
    """FCOS's spatial and scale constraint (SSC of the ATSS paper, section 3.2) for a whole batch at once.

    A prior learns the smallest gt (of equal areas the lower index) that its centre lies in and whose farthest
    side is within the range of its level; all other priors are background. With ``center_sampling_radius``
    the centre must also lie within that many strides of the gt's (FCOS's later center sampling; with it the
    ATSS paper's "ATSS lite" is compared, Table 3).

    Memory is that of the result and of a few rows of distances (2**18 pairs at a time on the CPU, 2**24
    elsewhere), whatever the number of gts.

    Args:
        regress_ranges: L pairs, pixels: lowest and highest distance (inclusive) from a centre to the farthest
            side of its gt.
        center_sampling_radius: in strides; None: anywhere in the gt. FCOS uses 1.5.
        center_margin: the centre lies more than this inside, pixels: 0.01 in the official ATSS code, 0 in
            ``mmdet.FCOSHead``; not negative.
        strides: L numbers or pairs (width, height), pixels, for center sampling in heads that do not pass
            them, as mmdet's do not.
        plus_one: areas count one more pixel a side, as those of legacy boxes do in the official code.

    Raises:
        ValueError: for a range that does not rise, a radius that is not positive, or a negative margin.
    """

    def __init__(
        self,
        regress_ranges: Sequence[Range] = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, INF)),
        center_sampling_radius: float | None = None,
        center_margin: float = CENTER_MARGIN,
        strides: Sequence[float | Range] | None = None,
        plus_one: bool = False,
    ) -> None:
        for pair in regress_ranges:
            if len(pair) != 2 or not pair[0] < pair[1]:
                raise ValueError(f'regress_ranges must be pairs (lowest, highest) of distances, got {pair}')
        if center_sampling_radius is not None and not center_sampling_radius > 0:
            raise ValueError(
                f'center_sampling_radius must be positive, or None for no center sampling, got '
                f'{center_sampling_radius}'
            )
        if not center_margin >= 0:
            raise ValueError(f'center_margin must not be negative, got {center_margin}')
        self.regress_ranges = tuple((float(low), float(high)) for low, high in regress_ranges)
        self.center_sampling_radius = center_sampling_radius
        self.center_margin = center_margin
        self.strides = None if strides is None else [_pair(stride) for stride in strides]
        self.plus_one = plus_one

    def assign_batch(
        self,
        priors: PyramidPriors,
        gts: PackedGts,
        valid: Tensor | None = None,
        predictions: Predictions | None = None,
    ) -> BatchAssignment:
        """Assigns every prior of every image of a batch.

        Args:
            priors: of the pyramid, as many levels as there are ranges; with strides for center sampling.
            gts: of the batch; ignore regions have no effect.
            valid: [B, N] bool, False for priors that take no part (in the padding); they come back as -1.
            predictions: not used.

        Returns:
            :class:`BatchAssignment`.

        Raises:
            AssignmentError: when the levels are not as many as the ranges, or strides are missing.
            ValueError: when ``valid`` does not fit.
        """
        check_valid(valid, priors, gts)
        num_levels = len(priors.level_sizes)
        if num_levels != len(self.regress_ranges):
            raise AssignmentError(
                f'SpatialScaleAssigner has {len(self.regress_ranges)} regress_ranges '
                f'{list(self.regress_ranges)}, but there are {num_levels} levels: give each level one'
            )
        limits = self._reach(priors)
        anchors, boxes = in_one_dtype(priors.boxes, gts)
        shape, num_gts = (gts.num_images, len(priors)), boxes.size(0)
        if not num_gts or not len(priors):
            nobody = gts.offsets.new_full(shape, num_gts)
            return BatchAssignment(
                to_assigned(nobody, gts.offsets, num_gts, valid, None), anchors.new_zeros(shape)
            )
        # Smallest area first; the sort is stable, so that of equal ones the lower gt is.
        order = box_area(boxes + self._growth(boxes)).sort(stable=True).indices
        levels = anchors.split(list(priors.level_sizes))
        winner = self._win(levels, boxes, gts, order, limits)
        if valid is not None:
            winner = winner.masked_fill(~valid, num_gts)
        assigned = to_assigned(winner, gts.offsets, num_gts, valid, None)
        return BatchAssignment(assigned, overlaps_of_winners(anchors, boxes, winner))

    def assign(self, pred_instances: InstanceData, *args: Any, **kwargs: Any) -> AssignResult:
        """The same for one image.

        Takes the call of any dense head of mmdet, see :func:`atss_ext.assigners.per_image.read_call`.

        Args:
            pred_instances: with ``priors`` [N, 4] or more columns, xyxy first, or points with their stride.
            *args: ``num_level_priors`` (L counts that sum to N) where the head counts them, ``gt_instances``
                with ``bboxes`` [M, 4] and ``labels`` [M], ``gt_instances_ignore`` (without effect).
            **kwargs: the same by name.

        Raises:
            AssignmentError: for another call, levels that neither head nor priors show or that are not as
                many as the ranges, or missing strides.
        """
        call = read_call(self, pred_instances, args, kwargs, by_level=True)
        return to_mmdet(self.assign_batch(call.priors, call.gts), call.gts.labels)

    def _growth(self, boxes: Tensor) -> Tensor:
        """[4], what the far corner gains where legacy boxes count their last pixel."""
        return boxes.new_tensor([0, 0, 1, 1] if self.plus_one else [0, 0, 0, 0])

    def _reach(self, priors: PyramidPriors) -> list[Range | None]:
        """How far from a gt's centre, in x and y, the centres of each level may lie; None: anywhere."""
        if self.center_sampling_radius is None:
            return [None] * len(priors.level_sizes)
        if priors.strides is None:
            priors = replace(priors, strides=self.strides)
        pairs = require_strides(self, priors)
        radius = self.center_sampling_radius
        return [(width * radius, height * radius) for width, height in pairs]

    def _win(
        self,
        levels: Sequence[Tensor],
        boxes: Tensor,
        gts: PackedGts,
        order: Tensor,
        limits: Sequence[Range | None],
    ) -> Tensor:
        """[B, N] int64: the packed gt that every prior learns, T for none.

        Args:
            levels: L tensors [n, 4], the priors.
            boxes: [T, 4].
            gts: of the batch.
            order: [T] int64, packed gts by area.
            limits: L reaches.
        """
        num_gts = boxes.size(0)
        # Ranks in float32 (exact up to 2**24), whose reductions PyTorch makes fastest.
        ranks = torch.empty(num_gts, device=boxes.device)
        ranks[order] = torch.arange(num_gts, device=boxes.device, dtype=ranks.dtype)
        best = []
        for level, centers in enumerate(map(box_centers, levels)):
            span = self.regress_ranges[level]
            some = _of_size(boxes, span)
            own, own_ranks, own_images = boxes[some], ranks[some], gts.image_ids[some]
            lowest = torch.full((gts.num_images, len(centers)), float(num_gts), device=boxes.device)
            for part in rows.split_rows(own_images, *lowest.shape):
                eligible = self._eligible(centers, own[part.gts], span, limits[level])
                rank = torch.where(eligible, own_ranks[part.gts, None], float(num_gts))
                rows.reduce_rows(lowest, part, rank, 'amin')
            best.append(lowest)
        none = order.new_full((1,), num_gts)
        return torch.cat([order, none])[torch.cat(best, 1).long()]

    def _eligible(self, centers: Tensor, boxes: Tensor, span: Range, reach: Range | None) -> Tensor:
        """Whether gts may be learned at points of one level: [n, 2], [t, 4] -> [t, n] bool."""
        nearest = centers.new_full((1, 1), INF)
        farthest = -nearest
        for axis in (0, 1):
            at = centers[:, axis]
            low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
            before, after = at - low, high - at
            farthest = torch.maximum(farthest, torch.maximum(before, after))
            nearest = torch.minimum(nearest, torch.minimum(before, after))
            if reach is not None:
                middle = (low + high) / 2
                nearest = torch.minimum(nearest, at - (middle - reach[axis]))
                nearest = torch.minimum(nearest, (middle + reach[axis]) - at)
        return (nearest > self.center_margin) & (farthest >= span[0]) & (farthest <= span[1])


def _of_size(boxes: Tensor, span: Range) -> Tensor | slice:
    """Gts that may be learned at all on a level of this range: [t] int64, or all where to ask costs time.

    The farthest side of a gt is at least half of its longer side away from a point inside, and at most all
    of it; the pixel and the thousandth leave room for rounding.
    """
    if not rows.reads_are_free(boxes.device):
        return slice(None)
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    room = 1 + side / 1000
    return ((side / 2 - room <= span[1]) & (side + room >= span[0])).nonzero()[:, 0]


def _pair(stride: float | Range) -> Range:
    """(width, height) of a stride that may be one number."""
    return (float(stride), float(stride)) if isinstance(stride, (int, float)) else (stride[0], stride[1])
