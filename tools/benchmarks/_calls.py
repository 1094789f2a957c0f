"""One assignment of a batch by either side, as a call without arguments."""

from _pairs import Call
from _scenes import Priors, pack
from _settings import TOPK
from torch import Tensor

from atss_ext import ops


def our_call(priors: Priors, images: list[Tensor], route: str) -> Call:
    """Our assignment of a batch; gts packed beforehand, as the head holds them."""
    boxes, offsets = pack(images)
    grid = priors.grid if route == 'grid' else None
    return lambda: ops.atss_assign(priors.boxes, priors.sizes, boxes, offsets, TOPK, grid=grid)


def their_call(priors: Priors, images: list[Tensor]) -> Call:
    """mmdet's assignment of a batch: image by image; instances made beforehand."""
    from mmdet.models.task_modules import ATSSAssigner
    from mmengine.structures import InstanceData

    assigner = ATSSAssigner(topk=TOPK)
    predictions = InstanceData(priors=priors.boxes)
    instances = [InstanceData(bboxes=boxes, labels=boxes.new_zeros(len(boxes)).long()) for boxes in images]
    return lambda: [assigner.assign(predictions, priors.sizes, one) for one in instances]
