"""The k best priors of every gt (``TOPK`` of the official ATSS code)."""

from typing import Any

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.assigners.base import (
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
    check_valid,
    to_mmdet,
)
from atss_ext.assigners.bbox_overlaps import pairwise_iou
from atss_ext.assigners.per_image import read_call
from atss_ext.assigners.rows import find_ignored, in_one_dtype, of_images, split_rows, usable_priors
from atss_ext.ops.reference import box_centers
from atss_ext.ops.reference.assignment import centers_inside, resolve_conflicts, to_assigned
from atss_ext.registry import TASK_UTILS

# Distance decides between priors of (nearly) equal IoU only: it counts a thousandth (official ATSS code).
DISTANCE_SHARE = 1000


@TASK_UTILS.register_module()
class TopKAssigner:
    """Every gt gets the ``topk`` priors of highest IoU of all levels, as the official ATSS code's ``TOPK``.

    Priors are ranked by IoU - distance / max_distance / 1000, distances from centre to centre and the
    greatest one that of the image; those whose centre lies inside the gt are positive; a prior that several
    gts claim goes to the one with the highest IoU. Of equal ranks the lower prior comes first; of equal IoUs
    the lower gt.

    Memory is that of the result and of a few rows of ranks (2**18 pairs at a time on the CPU, 2**24
    elsewhere), whatever the number of gts.

    Args:
        topk: priors a gt, of all levels and anchors together.
        iou_calculator: any of mmdet's.
        ignore_iof_thr: priors with more than this share of their area in an ignore region are ignored;
            <= 0 switches regions off.

    Raises:
        ValueError: for ``topk`` < 1.
    """

    def __init__(self, topk: int = 9, iou_calculator: dict | Any = None, ignore_iof_thr: float = -1) -> None:
        if topk < 1:
            raise ValueError(f'topk must be at least 1, got {topk}: the official code uses 9')
        self.topk = topk
        self.iou_calculator = MMDET_TASK_UTILS.build(iou_calculator or {'type': 'BboxOverlaps2D'})
        self.ignore_iof_thr = ignore_iof_thr

    def assign_batch(
        self,
        priors: PyramidPriors,
        gts: PackedGts,
        valid: Tensor | None = None,
        predictions: Predictions | None = None,
    ) -> BatchAssignment:
        """Assigns every prior of every image of a batch.

        Args:
            priors: of the pyramid.
            gts: of the batch.
            valid: [B, N] bool, False for priors that take no part (in the padding); they come back as -1.
            predictions: not used.

        Returns:
            :class:`BatchAssignment`.

        Raises:
            ValueError: when ``valid`` does not fit.
        """
        check_valid(valid, priors, gts)
        anchors, boxes = in_one_dtype(priors.boxes, gts)
        shape, num_gts = (gts.num_images, len(priors)), boxes.size(0)
        ignored = find_ignored(anchors, gts, self.ignore_iof_thr, self._iof)
        winner, ious = gts.offsets.new_full(shape, num_gts), anchors.new_zeros(shape)
        if num_gts and len(priors):
            usable = usable_priors(valid, ignored)
            farthest = _farthest(anchors, boxes, gts, valid)
            index, overlaps, positive = self._choose(anchors, boxes, gts, usable, farthest)
            positive &= centers_inside(box_centers(anchors)[index], boxes[:, None])
            winner, ious = resolve_conflicts(index, overlaps, positive, gts.image_ids, *shape)
        return BatchAssignment(to_assigned(winner, gts.offsets, num_gts, valid, ignored), ious)

    def assign(self, pred_instances: InstanceData, *args: Any, **kwargs: Any) -> AssignResult:
        """The same for one image.

        Takes the call of any dense head of mmdet, see :func:`atss_ext.assigners.per_image.read_call`.

        Args:
            pred_instances: with ``priors`` [N, 4] or more columns, xyxy first, or points with their stride.
            *args: ``num_level_priors`` where the head counts them (without effect), ``gt_instances`` with
                ``bboxes`` [M, 4] and ``labels`` [M], ``gt_instances_ignore`` with ``bboxes`` or None.
            **kwargs: the same by name.

        Raises:
            AssignmentError: for another call.
        """
        call = read_call(self, pred_instances, args, kwargs)
        return to_mmdet(self.assign_batch(call.priors, call.gts), call.gts.labels)

    def _choose(
        self, priors: Tensor, boxes: Tensor, gts: PackedGts, usable: Tensor | None, farthest: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[T, k] each: the best priors of every gt by index, their IoU, and whether they may be used."""
        centers, gt_centers = box_centers(priors), box_centers(boxes)
        k = min(self.topk, priors.size(0))
        # Made once: many small results between large temporaries would keep their memory from being reused.
        best = gts.offsets.new_empty((boxes.size(0), k))
        ious, ranks = boxes.new_empty(best.shape), boxes.new_empty(best.shape)
        for rows in split_rows(gts.image_ids, gts.num_images, priors.size(0)):
            overlaps = pairwise_iou(self.iou_calculator, boxes[rows.gts], priors)
            distance = _squared_distances(gt_centers[rows.gts], centers).sqrt_()
            rank = overlaps - distance / farthest[rows.gts, None] / DISTANCE_SHARE
            if usable is not None:
                rank = rank.masked_fill(~of_images(usable, rows), -torch.inf)
            best[rows.gts] = _best_by_index(rank, k)
            ious[rows.gts] = overlaps.gather(1, best[rows.gts])
            ranks[rows.gts] = rank.gather(1, best[rows.gts])
        return best, ious, ranks > -torch.inf

    def _iof(self, priors: Tensor, regions: Tensor) -> Tensor:
        return self.iou_calculator(priors, regions, mode='iof')


def _squared_distances(gt_centers: Tensor, centers: Tensor) -> Tensor:
    """[t, 2], [n, 2] -> [t, n]."""
    across = (centers[:, 0] - gt_centers[:, 0, None]).square_()
    return across.add_((centers[:, 1] - gt_centers[:, 1, None]).square_())


def _farthest(priors: Tensor, boxes: Tensor, gts: PackedGts, valid: Tensor | None) -> Tensor:
    """[T]: the greatest distance of any gt of the same image to any of its priors; 1 where that is 0."""
    centers, gt_centers = box_centers(priors), box_centers(boxes)
    greatest = []
    for rows in split_rows(gts.image_ids, gts.num_images, priors.size(0)):
        squared = _squared_distances(gt_centers[rows.gts], centers)
        if valid is not None:
            squared = squared.masked_fill(~of_images(valid, rows), 0)
        greatest.append(squared.amax(1))
    image_ids = gts.image_ids
    by_image = priors.new_zeros(gts.num_images).scatter_reduce_(0, image_ids, torch.cat(greatest), 'amax')
    distance = by_image.sqrt()
    return torch.where(distance > 0, distance, 1)[image_ids]


def _best_by_index(rank: Tensor, k: int) -> Tensor:
    """The k highest of every row, of equal ones the first: [t, N] -> [t, k] int64, by index.

    ``torch.topk`` leaves open which of equal ones it takes, but not their value.
    """
    least = rank.topk(k, 1).values[:, -1:]
    above, equal = rank > least, rank == least
    room = k - above.sum(1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(1) <= room))
    countdown = torch.arange(rank.size(1), 0, -1, device=rank.device, dtype=torch.float32)
    return torch.where(chosen, countdown, 0).topk(k, 1).indices
