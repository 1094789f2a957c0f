"""What mmdet's call for one image hands over, as a batch of one."""

from typing import Any

from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.assigners.base import PackedGts, Predictions, require_predictions


def image_batch(
    pred_instances: InstanceData, gt_instances: InstanceData, gt_instances_ignore: InstanceData | None
) -> tuple[Tensor, PackedGts]:
    """Priors [N, 4] and the packed gts of one image.

    Args:
        pred_instances: with ``priors`` [N, 4] or more columns, xyxy first.
        gt_instances: with ``bboxes`` [M, 4] and ``labels`` [M].
        gt_instances_ignore: with ``bboxes``, or None.
    """
    priors = get_box_tensor(pred_instances.priors)[:, :4]
    ignored = None if gt_instances_ignore is None else [gt_instances_ignore]
    return priors, PackedGts.from_instances([gt_instances], ignored)


def image_predictions(assigner: Any, pred_instances: InstanceData) -> Predictions:
    """Logits and boxes of one image as those of a batch of one.

    Raises:
        AssignmentError: where ``pred_instances`` has no ``scores`` or ``bboxes``.
    """
    if 'scores' not in pred_instances or 'bboxes' not in pred_instances:
        return require_predictions(assigner, None)
    return Predictions(pred_instances.scores[None], get_box_tensor(pred_instances.bboxes)[None])
