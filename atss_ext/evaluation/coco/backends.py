"""COCO's matching and accumulation by one of two libraries, which give the same arrays.

``reference`` is pycocotools, COCO's own evaluation. ``fast`` is hotcoco; see
:mod:`atss_ext.evaluation.backend`.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from atss_ext.evaluation.annotations import compressed
from atss_ext.evaluation.backend import Backend, choose_backend, fast_library
from atss_ext.evaluation.boxes import areas_of
from atss_ext.evaluation.coco.table import Found, Truth
from atss_ext.evaluation.grid import AREAS, THRESHOLDS


class Curves(NamedTuple):
    """What all figures are means of; -1 where a category has no object that counts.

    Attributes:
        precision: [T, R, K, A, D], IoU thresholds, recalls, categories, ranges of areas, limits of
            detections.
        recall: [T, K, A, D].
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def score(
    truth: Truth,
    found: Found,
    iou_type: str = 'bbox',
    max_dets: Sequence[int] = (1, 10, 100),
    backend: Backend | None = None,
) -> Curves:
    """Match and accumulate, at the IoU thresholds 0.5, 0.55, ..., 0.95.

    For masks the areas of detections are those of their masks (pycocotools takes the box's where a result has
    a box as well).

    Args:
        truth: the objects; all images count, also those without detections.
        found: the detections; there may be none.
        iou_type: 'bbox' or 'segm'.
        max_dets: limits of detections an image and category, ascending.
        backend: 'fast', 'reference', or None for the fast one where it is installed.

    Raises:
        ValueError: an unknown back-end, or a fast one that is not installed.
    """
    if not truth.names:  # both libraries trip over no category at all
        shape = (len(THRESHOLDS), 101, 0, len(AREAS), len(max_dets))
        return Curves(np.zeros(shape), np.zeros((shape[0], *shape[2:])))
    chosen = _fast if choose_backend(backend) == 'fast' else _reference
    with contextlib.redirect_stdout(io.StringIO()):
        return chosen(truth, found, iou_type, list(max_dets))


def _images(truth: Truth) -> list[dict[str, Any]]:
    return [{'id': n, 'height': size[0], 'width': size[1]} for n, size in enumerate(truth.sizes, 1)]


def _categories(truth: Truth) -> list[dict[str, Any]]:
    return [{'id': number, 'name': name} for number, name in enumerate(truth.names, 1)]


def _areas(found: Found, iou_type: str) -> NDArray[np.float64]:
    if iou_type == 'bbox':
        return areas_of(found.boxes)
    masks = found.masks or []
    # In parts: pycocotools measures no more than 255 masks at once where NumPy is 2 or newer.
    parts = [rle.area(masks[start : start + 250]) for start in range(0, len(masks), 250)]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float64)


def _fast(truth: Truth, found: Found, iou_type: str, max_dets: list[int]) -> Curves:
    library: Any = fast_library()
    segments = {} if iou_type == 'bbox' else {'segmentation': _segments(truth)}
    goals = library.COCO.from_arrays(
        _images(truth), _categories(truth), truth.images, truth.categories, truth.boxes,
        ids=np.arange(1, len(truth.images) + 1), area=truth.areas,
        iscrowd=truth.crowds.astype(np.int64), **segments,
    )  # fmt: skip
    rows = np.column_stack([found.images, found.boxes, found.scores, found.categories]).astype(np.float64)
    segments = {} if iou_type == 'bbox' else {'segmentation': list(found.masks or ())}
    results = goals.load_res(rows, **segments)
    if iou_type == 'segm' and len(found):
        # Otherwise the boxes' areas would say which range a detection is in.
        results.update_anns(ids=np.arange(1, len(found) + 1), area=_areas(found, iou_type))
    scorer = library.COCOeval(goals, results, iou_type)
    scorer.params.max_dets = max_dets
    scorer.evaluate()
    scorer.accumulate()
    return Curves(np.asarray(scorer.eval['precision']), np.asarray(scorer.eval['recall']))


def _segments(truth: Truth) -> list[Any]:
    sizes = [truth.sizes[image - 1] for image in truth.images.tolist()]
    return [compressed(one, size) for one, size in zip(truth.segmentations or (), sizes, strict=True)]


def _reference(truth: Truth, found: Found, iou_type: str, max_dets: list[int]) -> Curves:
    masks = _segments(truth) if iou_type == 'segm' else None
    columns = (truth.images, truth.categories, truth.boxes, truth.areas, truth.crowds)
    goals = _coco(truth, _entries(columns, masks))
    masks = found.masks if iou_type == 'segm' else None
    columns = (
        found.images,
        found.categories,
        found.boxes,
        _areas(found, iou_type),
        np.zeros(len(found), bool),
    )
    entries = _entries(columns, masks)
    for entry, value in zip(entries, found.scores.tolist(), strict=True):
        entry['score'] = value
    scorer = COCOeval(goals, _coco(truth, entries), iou_type)
    scorer.params.maxDets = max_dets
    scorer.evaluate()
    scorer.accumulate()
    return Curves(scorer.eval['precision'], scorer.eval['recall'])


def _entries(columns: Sequence[NDArray[Any]], masks: list[Any] | None) -> list[dict[str, Any]]:
    keys = ('image_id', 'category_id', 'bbox', 'area', 'iscrowd')
    rows = zip(*(column.tolist() for column in columns), strict=True)
    entries = [{'id': number, **dict(zip(keys, row, strict=True))} for number, row in enumerate(rows, 1)]
    for entry, mask in zip(entries, masks or (), strict=masks is not None):
        entry['iscrowd'] = int(entry['iscrowd'])
        entry['segmentation'] = mask
    return entries


def _coco(truth: Truth, entries: list[dict[str, Any]]) -> COCO:
    """Make what ``COCO.loadRes`` makes, which takes no empty list."""
    coco = COCO()
    coco.dataset = {'images': _images(truth), 'annotations': entries, 'categories': _categories(truth)}
    coco.createIndex()
    return coco
