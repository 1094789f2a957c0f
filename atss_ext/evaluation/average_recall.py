"""Average recall of open-ended detections, by pycocotools: the objects found, whatever their names."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.evaluation.coco_scores import at_threshold, coco_scores, mean_of, xywh
from atss_ext.vlsam.detections import Detections


class AverageRecall(NamedTuple):
    """Recall at so many detections an image.

    Attributes:
        mAR: mean over the IoU thresholds 0.5, 0.55, ..., 0.95, as COCO's AR.
        AR50: at IoU 0.5.
        AR75: at IoU 0.75.
    """

    mAR: float
    AR50: float
    AR75: float


class Truth(NamedTuple):
    """The M objects of one image.

    Attributes:
        boxes: xyxy [M, 4], pixels.
        masks: bool [M, H, W].
        names: M names.
    """

    boxes: NDArray[np.floating]
    masks: NDArray[np.bool_]
    names: Sequence[str]


def average_recall(
    truths: Sequence[Truth],
    found: Sequence[Detections],
    iou_type: str = 'bbox',
    names: bool = False,
    max_detections: int = 100,
) -> AverageRecall:
    """Score detections of some images together.

    The paper reports this for CODA (VL-SAM, table 2: mAR, AR50, AR75), where no names are compared.

    Args:
        truths: an image each.
        found: as many, in the same order; of each image the best ``max_detections`` count.
        iou_type: 'bbox' or 'segm'.
        names: an object is found only by a detection of its own name; recall is then the mean over the names
            there are.
        max_detections: an image.

    Returns:
        the recall; 0 where nothing is found.

    Raises:
        ValueError: the lengths differ, there is no object at all, or an unknown ``iou_type``.
    """
    if len(truths) != len(found):
        raise ValueError(f'{len(truths)} images with objects need as many detections, but got {len(found)}.')
    if iou_type not in ('bbox', 'segm'):
        raise ValueError(f"iou_type must be 'bbox' or 'segm', but is {iou_type!r}.")
    known = sorted({name for truth in truths for name in truth.names})
    if not known:
        raise ValueError('there is no object in these images; recall needs one at least.')
    ids = {name: number if names else 1 for number, name in enumerate(known, 1)}
    # A category of its own without objects for names that no object has; it leaves the mean alone.
    other = len(known) + 1 if names else 1
    images = [
        {'id': number, 'height': truth.masks.shape[1], 'width': truth.masks.shape[2]}
        for number, truth in enumerate(truths)
    ]
    objects = [entry for number, truth in enumerate(truths) for entry in _objects(number, truth, ids)]
    results = [entry for number, one in enumerate(found) for entry in _results(number, one, ids, other)]
    scorer = coco_scores(images, objects, results, iou_type, [max_detections])
    recall = scorer.eval['recall'][:, :, 0, 0]  # [T, K], all areas
    at_50, at_75 = (recall[at_threshold(scorer, threshold)] for threshold in (0.5, 0.75))
    return AverageRecall(mean_of(recall), mean_of(at_50), mean_of(at_75))


def _objects(image: int, truth: Truth, ids: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            'image_id': image,
            'category_id': ids[name],
            'bbox': xywh(box),
            'area': float(mask.sum()),
            'segmentation': rle.encode(np.asfortranarray(mask, dtype=np.uint8)),
        }
        for box, mask, name in zip(truth.boxes, truth.masks, truth.names, strict=True)
    ]


def _results(image: int, found: Detections, ids: dict[str, int], other: int) -> list[dict[str, Any]]:
    return [
        {
            'image_id': image,
            'category_id': ids.get(name, other),
            'bbox': xywh(box),
            'score': float(score),
            'segmentation': mask,
        }
        for box, score, name, mask in zip(
            found.boxes, found.scores, found.names, found.run_lengths, strict=True
        )
    ]
