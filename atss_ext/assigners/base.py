"""What assigners receive and return for a whole batch, and the two ways to call them."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from mmdet.models.task_modules import AssignResult, PointAssigner
from mmdet.models.task_modules import ATSSAssigner as MMDetATSSAssigner
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.ops.reference import gt_image_ids

# What mmdet's assigners report as the overlap of a prior that no gt claims.
MMDET_NO_OVERLAP = -100000000.0


class AssignmentError(ValueError):
    """Boxes or an assigner that cannot be used; the message is a sentence with the value and the way out."""


@dataclass(frozen=True)
class PackedGts:
    """The gts of all images of a batch, one after the other.

    Attributes:
        boxes: [T, 4] xyxy, pixels.
        labels: [T] int64.
        offsets: [B+1] int64; image b owns ``boxes[offsets[b]:offsets[b + 1]]``.
        ignore_boxes: [S, 4] xyxy; regions whose priors are neither positive nor negative.
        ignore_offsets: [B+1] int64, or None when the batch has no ignore regions.
    """

    boxes: Tensor
    labels: Tensor
    offsets: Tensor
    ignore_boxes: Tensor | None = None
    ignore_offsets: Tensor | None = None

    @property
    def num_images(self) -> int:
        """B."""
        return self.offsets.numel() - 1

    @property
    def image_ids(self) -> Tensor:
        """[T] int64, the image of every gt."""
        return gt_image_ids(self.offsets, self.boxes.size(0))

    @classmethod
    def from_instances(
        cls,
        gts: Sequence[InstanceData],
        ignored: Sequence[InstanceData | None] | None = None,
    ) -> 'PackedGts':
        """Packs mmdet's per-image instances; lengths are known to the host, so nothing is read back.

        Args:
            gts: B instances with ``bboxes`` ([M, 4] tensor or HorizontalBoxes) and ``labels`` [M].
            ignored: B instances with ``bboxes`` (None for an image without), or None.

        Raises:
            ValueError: for a batch of no images.
            AssignmentError: for NaN, infinite or inverted boxes (named).
        """
        if not gts:
            raise ValueError('cannot pack the gts of an empty batch: pass one InstanceData an image')
        boxes, offsets = _pack([get_box_tensor(instance.bboxes) for instance in gts])
        check_boxes(boxes, offsets, 'gt')
        labels = torch.cat([instance.labels for instance in gts])
        regions = [boxes[:0] if i is None else get_box_tensor(i.bboxes) for i in ignored or ()]
        if not any(map(len, regions)):
            return cls(boxes, labels, offsets)
        ignore_boxes, ignore_offsets = _pack(regions)
        check_boxes(ignore_boxes, ignore_offsets, 'ignore')
        return cls(boxes, labels, offsets, ignore_boxes, ignore_offsets)


def _pack(boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Concatenates B tensors [M, 4] and counts their offsets [B+1]."""
    ends = torch.tensor([0, *(len(image) for image in boxes)]).cumsum(0)
    packed = torch.cat([image.reshape(-1, 4) for image in boxes])
    return packed, ends.to(packed.device, non_blocking=True)


def check_boxes(boxes: Tensor, offsets: Tensor, kind: str) -> None:
    """Refuses boxes that are not finite or inverted.

    On the CPU the first bad box is named. Elsewhere the check is asynchronous, because reading the answer
    back would stall every training step; a bad box then fails as a device-side assertion.

    Args:
        boxes: [T, 4] xyxy.
        offsets: [B+1] int64.
        kind: 'gt' or 'ignore', for the sentence.

    Raises:
        AssignmentError: naming image and box, on the CPU.
    """
    good = boxes.isfinite().all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1)
    if boxes.device.type != 'cpu':
        torch._assert_async(good.all())
        return
    if bool(good.all()):
        return
    index = int((~good).nonzero()[0, 0])
    image = int(gt_image_ids(offsets, boxes.size(0))[index])
    raise AssignmentError(
        f'{kind} box {index - int(offsets[image])} of image {image} of the batch is {boxes[index].tolist()}: '
        'boxes must be finite xyxy with x1 <= x2 and y1 <= y2; correct or remove that annotation'
    )


@dataclass(frozen=True)
class BatchAssignment:
    """Who learns what, for every prior of every image.

    Attributes:
        assigned: [B, N] int64: i+1 for gt i of that image, 0 background, -1 ignored.
        ious: [B, N]: overlap of a positive prior with its gt, 0 elsewhere; where one of mmdet's assigners
            reports overlaps, its ``max_overlaps``.
    """

    assigned: Tensor
    ious: Tensor

    def gt_index(self, gts: PackedGts) -> Tensor:
        """[B, N] int64, the packed index of every positive's gt; 0 elsewhere (mask before use)."""
        packed = self.assigned - 1 + gts.offsets[:-1, None]
        return packed.masked_fill(self.assigned <= 0, 0)


@runtime_checkable
class BatchAssigner(Protocol):
    """An assigner that serves a whole batch in one call."""

    def assign_batch(
        self,
        priors: Tensor,
        level_sizes: Sequence[int],
        gts: PackedGts,
        valid: Tensor | None = None,
        priors_per_location: int = 1,
    ) -> BatchAssignment:
        """Assigns [N, 4] priors of L levels to the gts of B images; ``valid`` is [B, N] bool."""


def assign_batch(
    assigner: Any,
    priors: Tensor,
    level_sizes: Sequence[int],
    gts: PackedGts,
    valid: Tensor | None = None,
    priors_per_location: int = 1,
) -> BatchAssignment:
    """One call for every assigner: ours serve the batch at once, mmdet's are called image by image.

    Args:
        assigner: a :class:`BatchAssigner`, or one with mmdet's ``assign`` that goes by prior boxes and gts
            alone. Of mmdet's these are ATSSAssigner (without ``alpha``), MaxIoUAssigner and
            CenterRegionAssigner; what the last calls shadowed is background here, as in its ``gt_inds``.
        priors: [N, 4] xyxy, pixels; all levels one after the other.
        level_sizes: L counts that sum to N.
        gts: of the batch.
        valid: [B, N] bool, False for priors that take no part; they come back as -1.
        priors_per_location: anchors at one location.

    Raises:
        AssignmentError: for an assigner that needs more than prior boxes and gts (predictions, say), or
            gives a prior several gts.
    """
    if isinstance(assigner, BatchAssigner):
        return assigner.assign_batch(priors, level_sizes, gts, valid, priors_per_location)
    _check_call(assigner)
    rows = [
        _assign_image(assigner, priors, level_sizes, gts, image, None if valid is None else valid[image])
        for image in range(gts.num_images)
    ]
    return BatchAssignment(torch.stack([row for row, _ in rows]), torch.stack([iou for _, iou in rows]))


def _assign_image(
    assigner: Any,
    priors: Tensor,
    level_sizes: Sequence[int],
    gts: PackedGts,
    image: int,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Calls one of mmdet's assigners for one image: assigned [N] and ious [N]."""
    if valid is None:
        valid = priors.new_ones(priors.size(0), dtype=torch.bool)
    instances, ignored = _image_gts(gts, image)
    arguments: list[Any] = [instances, ignored]
    if _takes_levels(type(assigner)):
        arguments.insert(0, [int(level.sum()) for level in valid.split(list(level_sizes))])
    result = _call(assigner, InstanceData(priors=priors[valid]), arguments)
    assigned = result.gt_inds.new_full((priors.size(0),), -1)
    assigned[valid] = result.gt_inds
    ious = priors.new_zeros(priors.size(0))
    ious[valid] = _positive_overlaps(result, priors[valid], instances.bboxes)
    return assigned, ious


def _image_gts(gts: PackedGts, image: int) -> tuple[InstanceData, InstanceData | None]:
    """The gts of one image and its ignore regions, as mmdet's assigners take them."""
    own = slice(*gts.offsets[image : image + 2].tolist())
    instances = InstanceData(bboxes=gts.boxes[own], labels=gts.labels[own])
    if gts.ignore_offsets is None or gts.ignore_boxes is None:
        return instances, None
    regions = slice(*gts.ignore_offsets[image : image + 2].tolist())
    return instances, InstanceData(bboxes=gts.ignore_boxes[regions])


def _call(assigner: Any, candidates: InstanceData, arguments: Sequence[Any]) -> AssignResult:
    """mmdet's ``assign``; refuses an assigner that reads or returns what it does not have here."""
    try:
        result = assigner.assign(candidates, *arguments)
    except AttributeError as error:
        if error.obj is not candidates:
            raise
        raise _unfit(type(assigner), f'needs pred_instances.{error.name}') from None
    if result.gt_inds.shape != candidates.priors.shape[:1]:
        shape = list(result.gt_inds.shape)
        raise _unfit(type(assigner), f'returns {shape} gts for {len(candidates)} priors instead of one each')
    return result


def _check_call(assigner: Any) -> None:
    """Refuses assigners that mmdet's plain ``assign(pred_instances, gt_instances, ...)`` does not fit.

    What is wrong with others shows when they are called.
    """
    kind = type(assigner)
    if isinstance(assigner, PointAssigner):  # would take x1, y1, x2 of a box for them without a word
        raise _unfit(kind, 'needs points with their stride as priors ([N, 3])')
    if isinstance(assigner, MMDetATSSAssigner) and assigner.alpha is not None:
        raise _unfit(kind, f'with alpha={assigner.alpha} needs pred_instances.scores and .bboxes')
    given = 4 if _takes_levels(kind) else 3
    try:
        inspect.signature(kind.assign).bind('self', *range(given))
    except TypeError as error:
        raise _unfit(kind, f'cannot be called with priors, gts and ignored gts ({error})') from None


def _unfit(kind: type, why: str) -> AssignmentError:
    return AssignmentError(
        f'{kind.__name__} {why}: choose an assigner that goes by prior boxes and gts alone, such as '
        'ATSSAssigner or MaxIoUAssigner'
    )


def _positive_overlaps(result: AssignResult, priors: Tensor, boxes: Tensor) -> Tensor:
    """[n]: the overlap of every positive prior with its gt, 0 elsewhere.

    Args:
        result: of mmdet; its ``max_overlaps`` may be None, as assigners that go by centres leave it.
        priors: [n, 4] xyxy.
        boxes: [M, 4] xyxy, the gts.
    """
    if result.max_overlaps is not None:
        overlaps = result.max_overlaps.to(priors.dtype)
    elif len(boxes):
        own = boxes[(result.gt_inds - 1).clamp(min=0)].to(priors.dtype)
        overlaps = bbox_overlaps(priors, own, is_aligned=True)
    else:
        overlaps = priors.new_zeros(len(priors))
    return overlaps.masked_fill(result.gt_inds <= 0, 0)


def _takes_levels(kind: Any) -> bool:
    """Whether ``assign`` wants the priors of every level counted, as ATSS's does."""
    return 'num_level_priors' in inspect.signature(kind.assign).parameters


def to_mmdet(assignment: BatchAssignment, labels: Tensor) -> AssignResult:
    """The one image of ``assignment`` as mmdet's assigners report it.

    Args:
        assignment: of a batch of one.
        labels: [M] int64, of the image's gts.
    """
    assigned, ious = assignment.assigned[0], assignment.ious[0]
    if not len(labels):
        return AssignResult(0, assigned, ious, labels=torch.full_like(assigned, -1))
    overlaps = ious.masked_fill(assigned <= 0, MMDET_NO_OVERLAP)
    prior_labels = labels[(assigned - 1).clamp(min=0)].masked_fill(assigned <= 0, -1)
    return AssignResult(len(labels), assigned, overlaps, labels=prior_labels)
