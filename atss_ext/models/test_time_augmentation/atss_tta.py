"""Multi-scale testing of the official ATSS code as one of mmdet's models for test-time augmentation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.datasets.checks import DataError
from atss_ext.models.test_time_augmentation.box_voting import vote
from atss_ext.registry import MODELS

MERGES = ('vote', 'soft-vote')
Scale = tuple[int, int]


@MODELS.register_module()
class ATSSTTA(DetTTAModel):
    """Each scale answers for the sizes it sees well, and what all scales find is merged by box voting.

    What the official code does (sfzhang15/ATSS at 5f1c9fe), fact by fact:

    - The image is seen at its usual size (MIN_SIZE_TEST 800, MAX_SIZE_TEST 1333) and at 12 more, each also
      flipped horizontally: 26 views (``atss_core/engine/bbox_aug_vote.py``; H_FLIP, SCALE_H_FLIP).
    - The shorter side is one of SCALES: 400, 500, 600, 640, 700, 900, 1000, 1100, 1200, 1300, 1400, 1800; the
      longer side is at most 1333 where the shorter one is below 800, else MAX_SIZE, 3000
      (``configs/atss/atss_dcnv2_X_101_64x4d_FPN_2x.yaml``; ``bbox_aug_vote.py``).
    - Of a scale only boxes stay with low^2 < area < high^2, where area is measured at that scale, not in the
      original image; SCALE_RANGES in the order above: (96, 10000) twice, (64, 10000) three times, (0, 10000)
      twice, (0, 256) twice, (0, 192) twice, (0, 96). The usual size has no range (``remove_boxes``). Official
      sides count one pixel more; these do not.
    - Views are NMSed and cut to 100 detections first, as without augmentation (BBOX_AUG.VOTE;
      ``atss_core/modeling/rpn/atss/inference.py``).
    - Classes are merged one by one: MERGE_TYPE 'soft-vote' at IoU VOTE_TH 0.66 (the yaml; 'vote' is the
      default of ``atss_core/config/defaults.py``), decayed boxes below RETINANET.INFERENCE_TH 0.05 go
      (:func:`~atss_ext.models.test_time_augmentation.box_voting.vote`).
    - At most ATSS.PRE_NMS_TOP_N, 1000, detections of an image stay, not 100: COCO's 100 are for each class.

    A voted box is a mean of boxes, of which no mask is the mask: detections with masks are refused, as
    mmdet's ``DetTTAModel`` refuses them.

    Args:
        module: the detector, built or its config.
        area_ranges: a pair (scale, (low, high)) for each scale of the pipeline, ``Resize``'s scale in pixels
            and the sides of the squares between whose areas boxes stay; ``PackDetInputs``'s ``meta_keys``
            have to name ``scale``, ``scale_factor``, ``flip`` and ``flip_direction``.
        merge: 'soft-vote' or 'vote'; to merge by NMS, take mmdet's ``DetTTAModel``.
        vote_iou: at which boxes vote together.
        score_thr: below which what soft voting leaves of a box goes.
        max_per_img: detections of an image at most.
        data_preprocessor: stands in for the detector's, as in mmengine.

    Raises:
        ValueError: for an unknown ``merge``, a ``vote_iou`` outside (0, 1], a scale or a range that is none,
            and a scale with two ranges.
    """

    def __init__(
        self,
        module: Any,
        area_ranges: Sequence[tuple[Scale, tuple[float, float]]],
        merge: str = 'soft-vote',
        vote_iou: float = 0.66,
        score_thr: float = 0.05,
        max_per_img: int = 1000,
        data_preprocessor: Any = None,
    ) -> None:
        super().__init__(module=module, data_preprocessor=data_preprocessor)
        if merge not in MERGES:
            raise ValueError(
                f"merge must be 'vote' or 'soft-vote', got {merge!r}: to merge by NMS, take DetTTAModel"
            )
        if not 0 < vote_iou <= 1:
            raise ValueError(f'vote_iou must be above 0 and at most 1, got {vote_iou}')
        self.area_ranges = _ranges(area_ranges)
        self.vote_iou = vote_iou
        self.soft_floor = score_thr if merge == 'soft-vote' else None
        self.max_per_img = max_per_img

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        """Merges the views of one image; the first one's sample carries the result.

        Raises:
            DataError: for detections with masks.
        """
        if any('masks' in sample.pred_instances for sample in data_samples):
            raise DataError(
                'ATSSTTA merges boxes by voting, which leaves no mask of a merged box, but the detections of '
                'a view have masks: test without --tta, or take a detector of boxes alone'
            )
        views = [self._in_range(sample) for sample in data_samples]
        metas = [sample.metainfo for sample in data_samples]
        boxes, scores = self.merge_aug_bboxes(
            [view.bboxes for view in views], [view.scores for view in views], metas
        )
        labels = torch.cat([view.labels for view in views])
        merged = data_samples[0]
        merged.pred_instances = self._vote(boxes, scores, labels)
        return merged

    def _in_range(self, sample: DetDataSample) -> InstanceData:
        """The detections of a view whose area, at the scale of the view, lies in its scale's range.

        Raises:
            DataError: for a view of a scale without a range, and one that does not say its scale.
        """
        low, high = self._range_of(sample.metainfo)
        found = sample.pred_instances
        width, height = sample.metainfo['scale_factor'][:2]
        sides = found.bboxes[:, 2:] - found.bboxes[:, :2]
        areas = sides[:, 0] * width * (sides[:, 1] * height)
        return found[(areas > low * low) & (areas < high * high)]

    def _range_of(self, meta: Mapping[str, Any]) -> tuple[float, float]:
        missing = [key for key in ('scale', 'scale_factor', 'flip', 'flip_direction') if key not in meta]
        if missing:
            raise DataError(
                f'ATSSTTA needs to know how each view was made, but a view has no {missing[0]!r}: add it to '
                'the meta_keys of PackDetInputs in tta_pipeline'
            )
        scale = _key(meta['scale'])
        if scale not in self.area_ranges:
            raise DataError(
                f'ATSSTTA has no area range for the scale {scale or meta["scale"]} of a view, only for '
                f'{", ".join(map(str, self.area_ranges))}: add one to area_ranges of tta_model'
            )
        return self.area_ranges[scale]

    def _vote(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> InstanceData:
        """Merged detections of an image, best first; of equals the lower class goes first.

        On the host, in doubles: groups are made one after the other.
        """
        kinds = labels.cpu().numpy()
        all_boxes, all_scores = boxes.cpu().double().numpy(), scores.cpu().double().numpy()
        rows, values, classes = [all_boxes[:0]], [all_scores[:0]], [kinds[:0]]
        for kind in np.unique(kinds):
            own = kinds == kind
            merged, merged_scores = vote(all_boxes[own], all_scores[own], self.vote_iou, self.soft_floor)
            rows.append(merged)
            values.append(merged_scores)
            classes.append(np.full(len(merged), kind))
        found = np.concatenate(values)
        order = np.argsort(-found, kind='stable')[: self.max_per_img]
        return InstanceData(
            bboxes=boxes.new_tensor(np.concatenate(rows)[order]),
            scores=scores.new_tensor(found[order]),
            labels=labels.new_tensor(np.concatenate(classes)[order]),
        )


def _key(scale: Any) -> Scale | None:
    """A scale as (shorter, longer), as Resize with keep_ratio takes them in either order, or None."""
    sides = _numbers(scale)
    if sides is None or not all(1 <= side < math.inf for side in sides):
        return None
    short, long = sorted(int(side) for side in sides)
    return short, long


def _numbers(pair: Any) -> tuple[float, float] | None:
    """Two numbers; None of anything else."""
    try:
        first, second = map(float, pair)
    except (TypeError, ValueError):
        return None
    return first, second


def _ranges(pairs: Sequence[tuple[Scale, tuple[float, float]]]) -> dict[Scale, tuple[float, float]]:
    """Ranges by scale."""
    ranges: dict[Scale, tuple[float, float]] = {}
    for pair in pairs:
        scale, limits = pair if isinstance(pair, Sequence) and len(pair) == 2 else (None, None)
        key, numbers = _key(scale), _numbers(limits)
        if key is None:
            raise ValueError(
                'area_ranges must have pairs (scale, (low, high)), such as ((1333, 800), (96, 1e4)), '
                f'got {pair}'
            )
        if numbers is None or not 0 <= numbers[0] < numbers[1]:
            raise ValueError(
                f'the area range of scale {scale} must be (low, high) with 0 <= low < high, got {limits}'
            )
        if key in ranges:
            raise ValueError(f'scale {scale} has two area ranges: remove one of them')
        ranges[key] = numbers
    return ranges
