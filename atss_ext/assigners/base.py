"""What assigners receive and return for a whole batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.ops import GridLevel
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


def check_labels(gts: PackedGts, num_classes: int) -> None:
    """Refuses labels that are none of a head's classes, on the CPU by name and elsewhere as ``check_boxes``.

    Args:
        gts: of the batch.
        num_classes: C; labels go from 0 to C - 1.

    Raises:
        AssignmentError: naming image, gt and label, on the CPU.
    """
    labels = gts.labels
    good = (labels >= 0) & (labels < num_classes)
    if labels.device.type != 'cpu':
        torch._assert_async(good.all())
        return
    if bool(good.all()):
        return
    index = int((~good).nonzero()[0, 0])
    image = int(gts.image_ids[index])
    raise AssignmentError(
        f'gt {index - int(gts.offsets[image])} of image {image} of the batch has label {int(labels[index])}, '
        f'but the head has {num_classes} classes, 0 to {num_classes - 1}: correct num_classes of the head or '
        'the label'
    )


@dataclass(frozen=True)
class PyramidPriors:
    """The priors of a feature pyramid, shared by all images of a batch.

    Attributes:
        boxes: [N, 4] xyxy, pixels; all levels one after the other.
        level_sizes: L counts that sum to N.
        per_location: anchors at one location.
        grid: the levels from :func:`atss_ext.ops.find_grid`, where they are grids; assigners give the same
            result without, some of them slower.
        strides: L pairs (width, height), pixels, for assigners that measure distances in them.

    Raises:
        ValueError: when boxes are not [N, 4] floats, sizes do not add up to N, or ``per_location`` is
            below 1.
    """

    boxes: Tensor
    level_sizes: Sequence[int]
    per_location: int = 1
    grid: Sequence[GridLevel] | None = None
    strides: Sequence[tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        boxes, sizes = self.boxes, list(self.level_sizes)
        if boxes.dim() != 2 or boxes.size(1) != 4 or not boxes.is_floating_point():
            raise ValueError(f'priors must be a float tensor [N, 4], got {boxes.dtype} {tuple(boxes.shape)}')
        if sum(sizes) != boxes.size(0):
            raise ValueError(
                f'level sizes {sizes} add up to {sum(sizes)}, but there are {boxes.size(0)} priors: pass the '
                'number of priors of every level'
            )
        if self.per_location < 1:
            raise ValueError(f'per_location must be at least 1, got {self.per_location}')

    def __len__(self) -> int:
        """N."""
        return self.boxes.size(0)

    @cached_property
    def levels(self) -> tuple[Tensor, ...]:
        """L tensors [n, 4], the priors of every level."""
        return self.boxes.split(list(self.level_sizes))


@dataclass(frozen=True)
class Predictions:
    """What a head predicts at every prior, for assigners that go by it; without gradients.

    Attributes:
        scores: [B, N, C], logits or probabilities of the classes.
        boxes: [B, N, 4] xyxy, pixels, decoded.
        are_logits: whether the sigmoid is still to be taken of ``scores``.
    """

    scores: Tensor
    boxes: Tensor
    are_logits: bool = True


@dataclass(frozen=True)
class BatchAssignment:
    """Who learns what, for every prior of every image.

    Attributes:
        assigned: [B, N] int64: i+1 for gt i of that image, 0 background, -1 ignored.
        ious: [B, N]: overlap of a positive prior (of its predicted box, where the assigner goes by
            predictions) with its gt, 0 elsewhere; where one of mmdet's assigners reports overlaps, its
            ``max_overlaps``.
        metrics: [B, N], what the assigner ranks positives by, 0 elsewhere (TOOD's alignment metric); None
            where there is no such thing.
    """

    assigned: Tensor
    ious: Tensor
    metrics: Tensor | None = None


@runtime_checkable
class BatchAssigner(Protocol):
    """An assigner that serves a whole batch in one call.

    One with the class attribute ``needs_predictions = True`` is given ``predictions``, others are not: to
    decode the boxes of all priors costs a head time.
    """

    def assign_batch(
        self,
        priors: PyramidPriors,
        gts: PackedGts,
        valid: Tensor | None = None,
        predictions: Predictions | None = None,
    ) -> BatchAssignment:
        """Assigns the priors to the gts of B images; arguments of :func:`atss_ext.assigners.assign_batch`."""


def check_valid(valid: Tensor | None, priors: PyramidPriors, gts: PackedGts) -> None:
    """Refuses a mask of ``assign_batch`` that does not fit the rest.

    Raises:
        ValueError: when ``valid`` is not [B, N].
    """
    if valid is not None and tuple(valid.shape) != (gts.num_images, len(priors)):
        raise ValueError(
            f'valid must be [{gts.num_images}, {len(priors)}] (images, priors), got {tuple(valid.shape)}'
        )


def require_predictions(assigner: object, predictions: Predictions | None) -> Predictions:
    """The predictions, which ``assigner`` cannot do without.

    Raises:
        AssignmentError: where there are none.
    """
    if predictions is None:
        raise AssignmentError(
            f'{type(assigner).__name__} ranks priors by predicted scores and boxes, but has none: use it '
            'in atss_ext.ATSSHead or pass pred_instances.scores and .bboxes'
        )
    return predictions


def require_strides(assigner: object, priors: PyramidPriors) -> Sequence[tuple[float, float]]:
    """The strides of all levels, which ``assigner`` cannot do without.

    Raises:
        AssignmentError: where there are none, or not one a level.
    """
    strides, num_levels = priors.strides, len(priors.level_sizes)
    if strides is None or len(strides) != num_levels:
        raise AssignmentError(
            f'{type(assigner).__name__} measures distances in strides and needs a (width, height) for all of '
            f'{num_levels} levels, but got {None if strides is None else list(strides)}: pass strides to '
            'PyramidPriors'
        )
    return strides


def to_mmdet(assignment: BatchAssignment, labels: Tensor) -> AssignResult:
    """The one image of ``assignment`` as mmdet's assigners report it.

    ``assign_metrics`` [N], by which TOODHead weighs positives, are the metrics, and the overlaps where the
    assigner has none: the head's target is then the overlap itself, as other quality losses have it.

    Args:
        assignment: of a batch of one.
        labels: [M] int64, of the image's gts.
    """
    assigned, ious = assignment.assigned[0], assignment.ious[0]
    overlaps, prior_labels = ious, torch.full_like(assigned, -1)
    if len(labels):
        overlaps = ious.masked_fill(assigned <= 0, MMDET_NO_OVERLAP)
        prior_labels = labels[(assigned - 1).clamp(min=0)].masked_fill(assigned <= 0, -1)
    result = AssignResult(len(labels), assigned, overlaps, labels=prior_labels)
    result.assign_metrics = ious if assignment.metrics is None else assignment.metrics[0]
    return result
