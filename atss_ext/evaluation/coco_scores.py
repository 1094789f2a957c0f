"""COCO's recall and precision of plain dicts, by pycocotools, without its print-outs and its empty cases."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def coco_scores(
    images: Sequence[dict[str, Any]],
    objects: Sequence[dict[str, Any]],
    detections: Sequence[dict[str, Any]],
    iou_type: str = 'bbox',
    max_dets: Sequence[int] = (1, 10, 100),
) -> COCOeval:
    """Match and accumulate; objects of all areas, the IoU thresholds 0.5, 0.55, ..., 0.95.

    A category is whatever ``category_id`` an object or a detection has. There may be no detections, no
    objects and no images. The dicts stay as they are.

    Args:
        images: ``id``, and for polygons ``height`` and ``width``.
        objects: annotations; ``id`` is not needed.
        detections: COCO results.
        iou_type: 'bbox' or 'segm'.
        max_dets: limits of detections an image and category, ascending.

    Returns:
        the scorer; ``eval['recall']`` is [T, K, 1, D] and ``eval['precision']`` is [T, R, K, 1, D], for
        thresholds, recalls, categories and limits, with -1 where a category has no objects.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        scorer = COCOeval(
            _coco(images, objects, 'objects'), _coco(images, detections, 'detections'), iou_type
        )
        ids = {entry['category_id'] for entry in (*objects, *detections)}
        scorer.params.catIds = sorted(ids)
        scorer.params.areaRng, scorer.params.areaRngLbl = scorer.params.areaRng[:1], ['all']
        scorer.params.maxDets = list(max_dets)
        scorer.evaluate()
        scorer.accumulate()
    return scorer


def mean_of(part: NDArray[np.floating]) -> float:
    """Mean over what there are objects for; -1, as pycocotools says it, if there are none."""
    there = part[part > -1]
    return float(there.mean()) if there.size else -1.0


def at_threshold(scorer: COCOeval, threshold: float) -> int:
    """Return the place of an IoU threshold in the scorer's arrays."""
    return int(np.flatnonzero(np.isclose(scorer.params.iouThrs, threshold))[0])


def xywh(box: Sequence[float] | NDArray[np.floating]) -> list[float]:
    """Bring a box from xyxy to COCO's form, in pixels."""
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def _coco(images: Sequence[dict[str, Any]], entries: Sequence[dict[str, Any]], kind: str) -> COCO:
    """Make what ``COCO.loadRes`` makes, which takes no empty list."""
    annotations = []
    # Ids from 1: COCOeval takes an object with the id 0 for none.
    for number, entry in enumerate(entries, 1):
        box = entry['bbox']
        crowd = 0 if kind == 'detections' else int(entry.get('iscrowd') or 0)
        # Detections that reach the largest area are ignored, but no image is as large.
        area = float(entry.get('area', box[2] * box[3]))
        annotations.append({**entry, 'id': number, 'iscrowd': crowd, 'area': area})
    coco = COCO()
    ids = sorted({entry['category_id'] for entry in entries})
    coco.dataset = {
        'images': list(images),
        'annotations': annotations,
        'categories': [{'id': number, 'name': str(number)} for number in ids],
    }
    coco.createIndex()
    return coco
