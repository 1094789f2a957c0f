"""The native overlaps as an IoU calculator of mmdet, and as what stands in for its own."""

from typing import Any

from mmdet.models.task_modules import BboxOverlaps2D as MMDetBboxOverlaps2D
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from torch import Tensor

from atss_ext import ops
from atss_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class BboxOverlaps2D:
    """mmdet's IoU calculator of this name on the native ops; fits every assigner.

    ``iou_calculator=dict(type='atss_ext.BboxOverlaps2D')`` in the config of any assigner. Half precision is
    computed in float32 and returned as half; besides mmdet's modes there are 'diou' and 'ciou'. All pairs of
    float32 or float64 boxes need no matrix but the result; half on the CPU passes through a float32 one, and
    where a gradient is wanted, or the library does not serve the device, PyTorch makes several.
    """

    def __call__(
        self,
        bboxes1: Tensor | BaseBoxes,
        bboxes2: Tensor | BaseBoxes,
        mode: ops.IoUMode = 'iou',
        is_aligned: bool = False,
    ) -> Tensor:
        """Overlaps of boxes.

        Args:
            bboxes1: [N, 4], or [N, 5] with a score that is left out, or empty; xyxy, pixels.
            bboxes2: [M, 4] or [M, 5]; as many as ``bboxes1`` if ``is_aligned``.
            mode: 'iou', 'iof' (intersection over ``bboxes1``), 'giou', 'diou' or 'ciou'.
            is_aligned: box i with box i.

        Returns:
            [N, M], or [N] if ``is_aligned``.

        Raises:
            ValueError: for an unknown mode or shapes that do not fit.
        """
        boxes1, boxes2 = _four_columns(bboxes1), _four_columns(bboxes2)
        if is_aligned:
            return ops.aligned_box_iou(boxes1, boxes2, mode)
        return ops.batched_box_iou(boxes1, boxes2, mode)

    def __repr__(self) -> str:
        return 'BboxOverlaps2D()'


def _four_columns(boxes: Tensor | BaseBoxes) -> Tensor:
    tensor = get_box_tensor(boxes)
    return tensor[..., :4] if tensor.size(-1) == 5 else tensor


def is_plain_iou(calculator: Any) -> bool:
    """Whether a calculator gives plain IoU, which the native ops compute themselves."""
    if type(calculator) is MMDetBboxOverlaps2D:
        return calculator.dtype is None
    return type(calculator) is BboxOverlaps2D


def pairwise_iou(calculator: Any, boxes: Tensor, priors: Tensor) -> Tensor:
    """Overlaps of any calculator, natively where it gives plain IoU.

    Args:
        calculator: one of mmdet's.
        boxes: [t, 4] xyxy.
        priors: [N, 4] xyxy.

    Returns:
        [t, N], in the dtype of ``priors``.
    """
    if is_plain_iou(calculator):
        return ops.batched_box_iou(boxes, priors)
    return calculator(boxes, priors).to(priors.dtype)
