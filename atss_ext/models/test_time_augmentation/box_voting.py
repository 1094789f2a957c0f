"""Box voting: boxes that overlap become their mean instead of all but the best being dropped."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def vote(
    boxes: Floats, scores: Floats, iou_threshold: float, soft_floor: float | None = None
) -> tuple[Floats, Floats]:
    """Merges the boxes of one class (official ``atss_core/engine/bbox_aug_vote.py``, MERGE_TYPE).

    The best box left gathers all that overlap it by at least the threshold, itself included, and they leave;
    again, until none is left. A group becomes one box: the mean weighted by scores, with its best score.
    Softly (``soft-vote``), each of the group also stays as it is with its score times 1 - IoU(it, the best),
    where that reaches the floor: a neighbour that only looked like the same object is not lost. A group of
    one stays as it is. IoUs are those of mmdet's boxes, without the official code's extra pixel.

    Args:
        boxes: [n, 4] xyxy.
        scores: [n]; of equals the earlier one is the better.
        iou_threshold: at least 0.
        soft_floor: for soft voting; None for plain voting.

    Returns:
        Boxes [k, 4] and scores [k], in the order of the groups.
    """
    order = np.argsort(-scores, kind='stable')
    merged_boxes, merged_scores = [boxes[:0]], [scores[:0]]
    while len(order):
        overlaps = _ious(boxes[order[0]], boxes[order])
        overlaps[0] = 1  # with itself, also where it has no area
        near = overlaps >= iou_threshold
        members, overlaps, order = order[near], overlaps[near], order[~near]
        if len(members) == 1:
            merged_boxes.append(boxes[members])
            merged_scores.append(scores[members])
            continue
        own = scores[members]
        weights = own if own[0] > 0 else np.ones_like(own)
        merged_boxes.append((boxes[members] * weights[:, None]).sum(0, keepdims=True) / weights.sum())
        merged_scores.append(own[:1])
        if soft_floor is not None:
            decayed = own * (1 - overlaps)
            stay = decayed >= soft_floor
            stay[0] = False  # it is the mean's, also where the floor is 0
            merged_boxes.append(boxes[members[stay]])
            merged_scores.append(decayed[stay])
    return np.concatenate(merged_boxes), np.concatenate(merged_scores)


def _ious(box: Floats, boxes: Floats) -> Floats:
    """[n]: IoU of one box with [n, 4] others; 0 where both have no area."""
    corners = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.clip(corners, 0, None).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared
    return shared / np.maximum(union, np.finfo(np.float64).tiny)
