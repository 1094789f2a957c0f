"""Detections to score: kept an image, limited an image or a category, and put in scoring order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.datasets.checks import DataError
from atss_ext.datasets.segmentation import segmentation_faults
from atss_ext.evaluation.annotations import compressed
from atss_ext.evaluation.boxes import areas_of
from atss_ext.evaluation.lvis.truth import LvisTruth, contains
from atss_ext.evaluation.samples import other_size


@dataclass(frozen=True)
class ImageDetections:
    """The N detections of one image.

    Attributes:
        image: the image's row in the truth.
        categories: rows of categories in the truth, [N].
        scores: [N].
        areas: [N], square pixels: of the boxes, or of the masks.
        regions: boxes, xywh [N, 4], pixels; or N masks as compressed run lengths, None where no object can
            be met.
    """

    image: int
    categories: NDArray[np.int64]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    regions: Any

    def take(self, places: NDArray[np.int64]) -> 'ImageDetections':
        """Some of the detections, in the given order."""
        regions = self.regions
        chosen = [regions[i] for i in places] if isinstance(regions, list) else regions[places]
        return ImageDetections(
            self.image, self.categories[places], self.scores[places], self.areas[places], chosen
        )


def of_boxes(
    image: int, categories: NDArray[np.int64], scores: NDArray[np.float64], boxes: NDArray[np.float64]
) -> ImageDetections:
    """Detections by box, xywh [N, 4]."""
    return ImageDetections(image, categories, scores, areas_of(boxes), boxes)


def of_masks(
    truth: LvisTruth,
    image: int,
    categories: NDArray[np.int64],
    scores: NDArray[np.float64],
    masks: Sequence[Mapping[str, Any]],
) -> ImageDetections:
    """Detections by mask; areas are the masks' (lvis-api takes the boxes' where results have boxes too).

    Masks of pairs that have no object are measured and let go: nothing will be compared with them.

    Raises:
        DataError: a mask is of another size than the image.
    """
    identity, size = truth.image_at(image)
    for mask in masks:
        if tuple(mask['size']) != size:
            raise other_size(identity, mask['size'], size)
    # One by one: pycocotools measures no more than 255 masks at once where NumPy is 2 or newer.
    areas = np.array([rle.area(mask) for mask in masks], np.float64)
    met = truth.has_objects(truth.pairs(image, categories)).tolist()
    kept = [mask if wanted else None for mask, wanted in zip(masks, met, strict=True)]
    return ImageDetections(image, categories, scores, areas, kept)


def from_coco(
    results: Iterable[Mapping[str, Any]], truth: LvisTruth, iou_type: str = 'bbox'
) -> list[ImageDetections]:
    """Read a plain COCO result list, as submitted to LVIS's server.

    Args:
        results: ``image_id``, ``category_id``, ``score``, and ``bbox`` (xywh, pixels) or ``segmentation``
            (run lengths or polygons) each.
        truth: what they will be compared with; categories that it does not have are dropped.
        iou_type: 'bbox' or 'segm'.

    Raises:
        DataError: an image is not in the truth, or a result has no region of the wanted kind, or a mask that
            does not fit to its image.
    """
    key = 'bbox' if iou_type == 'bbox' else 'segmentation'
    listed = list(results)
    known = _known(listed, truth, key)
    # Columns of all results, cut into images: arrays an image would take most of the time.
    images = np.array([truth.image_rows[one['image_id']] for one in known], np.int64)
    categories = np.array([truth.category_rows[one['category_id']] for one in known], np.int64)
    scores = np.array([one['score'] for one in known], np.float64)
    order = np.argsort(images, kind='stable')
    parts = np.split(order, np.flatnonzero(np.diff(images[order])) + 1) if known else []
    if iou_type == 'bbox':
        boxes = np.array([one['bbox'] for one in known], np.float64).reshape(-1, 4)
        return [of_boxes(int(images[at[0]]), categories[at], scores[at], boxes[at]) for at in parts]
    _refuse_masks(listed, truth)
    rows = []
    for at in parts:
        size = truth.image_size(known[at[0]]['image_id'])
        masks = [compressed(known[place]['segmentation'], size) for place in at.tolist()]
        rows.append(of_masks(truth, int(images[at[0]]), categories[at], scores[at], masks))
    return rows


def _known(results: Sequence[Mapping[str, Any]], truth: LvisTruth, key: str) -> list[Mapping[str, Any]]:
    """The results of categories that are scored."""
    for one in results:
        if one['image_id'] not in truth.image_rows:
            raise DataError(f'a result is for image {one["image_id"]}, which {truth.ann_file} does not have')
        if key not in one:
            raise DataError(
                f"a result for image {one['image_id']} has no '{key}'; masks and boxes need theirs"
            )
    return [one for one in results if one['category_id'] in truth.category_rows]


def _refuse_masks(results: Sequence[Mapping[str, Any]], truth: LvisTruth) -> None:
    sizes = (truth.image_size(one['image_id']) for one in results)
    for place, fault in segmentation_faults((one['segmentation'] for one in results), sizes):
        raise DataError(f'detection {place} {fault.text}')


def best_of_image(row: ImageDetections, count: int) -> ImageDetections:
    """The best detections of an image, whatever their category; of equal scores the first ones."""
    if len(row.scores) <= count:
        return row
    return row.take(np.argsort(-row.scores, kind='stable')[:count])


def best_of_categories(rows: Sequence[ImageDetections], count: int, spare: int = 0) -> list[ImageDetections]:
    """The best detections of every category over all images.

    Of equal scores those of the lower image id come first, and of one image the first ones: a total order,
    so that limiting each process's share first changes nothing.

    Args:
        rows: an image each.
        count: detections a category.
        spare: so many best ones of each image stay in any case.
    """
    if not rows:
        return []
    images = np.concatenate([np.full(len(row.scores), row.image) for row in rows])
    categories = np.concatenate([row.categories for row in rows])
    scores = np.concatenate([row.scores for row in rows])
    order = np.lexsort((images, -scores, categories))
    keep = np.zeros(len(scores), bool)
    keep[order[_places(categories[order]) < count]] = True
    if spare:
        order = np.lexsort((-scores, images))
        keep[order[_places(images[order]) < spare]] = True
    ends = np.cumsum([len(row.scores) for row in rows])[:-1]
    return [
        row if mask.all() else row.take(np.flatnonzero(mask))
        for row, mask in zip(rows, np.split(keep, ends), strict=True)
    ]


def searched_only(row: ImageDetections, truth: LvisTruth) -> ImageDetections:
    """Without detections that nothing is known about, and without those that have no area."""
    pairs = truth.pairs(row.image, row.categories)
    counted = contains(pairs, truth.searched) & (row.areas > 0)
    return row if counted.all() else row.take(np.flatnonzero(counted))


def _places(sorted_keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of every entry within its run of equal keys."""
    if not len(sorted_keys):
        return np.zeros(0, np.int64)
    numbers = np.arange(len(sorted_keys))
    starts = np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])
    return numbers - np.maximum.accumulate(np.where(starts, numbers, 0))
