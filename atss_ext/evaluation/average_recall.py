"""Average recall of open-ended detections, by pycocotools: the objects found, whatever their names."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

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
    ids = {name: number for number, name in enumerate(known, 1)}
    results = [entry for number, one in enumerate(found) for entry in _results(number, one, ids)]
    if not results:
        return AverageRecall(0.0, 0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _coco(truths, ids)
        scorer = COCOeval(truth, truth.loadRes(results), iou_type)
        scorer.params.useCats = int(names)
        scorer.params.maxDets = [max_detections]
        scorer.evaluate()
        scorer.accumulate()
    recall = scorer.eval['recall'][:, :, 0, 0]  # [T, K], all areas
    at = [np.isclose(scorer.params.iouThrs, threshold) for threshold in (0.5, 0.75)]
    parts = [recall, *(recall[index] for index in at)]
    return AverageRecall(*(float(part[part > -1].mean()) for part in parts))


def _coco(truths: Sequence[Truth], ids: dict[str, int]) -> COCO:
    annotations: list[dict[str, Any]] = []
    for image, truth in enumerate(truths):
        for box, mask, name in zip(truth.boxes, truth.masks, truth.names, strict=True):
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image,
                    'category_id': ids[name],
                    'bbox': _xywh(box),
                    'area': float(mask.sum()),
                    'segmentation': rle.encode(np.asfortranarray(mask, dtype=np.uint8)),
                    'iscrowd': 0,
                }
            )
    # Names that no object has are a category too: COCOeval sees no detection of others.
    categories = [{'id': number, 'name': name} for name, number in ids.items()]
    categories.append({'id': len(ids) + 1, 'name': ''})
    coco = COCO()
    coco.dataset = {
        'images': [
            {'id': image, 'height': truth.masks.shape[1], 'width': truth.masks.shape[2]}
            for image, truth in enumerate(truths)
        ],
        'annotations': annotations,
        'categories': categories,
    }
    coco.createIndex()
    return coco


def _results(image: int, found: Detections, ids: dict[str, int]) -> list[dict[str, Any]]:
    """COCO results; names that no object has share one category that has no objects."""
    return [
        {
            'image_id': image,
            'category_id': ids.get(name, len(ids) + 1),
            'bbox': _xywh(box),
            'score': float(score),
            'segmentation': mask,
        }
        for box, score, name, mask in zip(
            found.boxes, found.scores, found.names, found.run_lengths, strict=True
        )
    ]


def _xywh(box: NDArray[np.floating]) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]
