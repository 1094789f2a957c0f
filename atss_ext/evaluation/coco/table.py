"""The objects of a COCO-style file and the detections to score, as columns.

Columns, not a dict a detection: half a million detections are some 30 MB this way, and either back-end makes
what it needs of them.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.datasets.checks import DataError, read_coco

WAY_OUT = 'tools/datasets/check_annotations.py lists such faults'


@dataclass(frozen=True)
class Truth:
    """The G objects of a file.

    Images and categories are numbered from 1, in order of their ids: the order of images decides between
    equal scores, and pycocotools takes an object with the id 0 for none.

    Attributes:
        ann_file: the file, for messages.
        image_numbers: the number of each image id.
        sizes: height and width of each image in order of numbers, pixels.
        category_numbers: the number of each category id that is scored.
        names: of the categories, in order of numbers.
        images: numbers [G].
        categories: numbers [G].
        boxes: xywh [G, 4], pixels.
        areas: [G], square pixels; the file's, or the box's where it says none.
        crowds: bool [G].
        segmentations: of G objects; None where masks are not needed.
    """

    ann_file: str
    image_numbers: dict[Any, int]
    sizes: list[tuple[int, int]]
    category_numbers: dict[Any, int]
    names: list[str]
    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    segmentations: list[Any] | None

    @property
    def number_of_class(self) -> dict[str, int]:
        """The number of each category's name."""
        return {name: number for number, name in enumerate(self.names, 1)}

    def only(self, kept: NDArray[np.bool_]) -> 'Truth':
        """The objects of a choice, bool [G]; all images and categories stay."""
        masks = self.segmentations
        return Truth(
            self.ann_file,
            self.image_numbers,
            self.sizes,
            self.category_numbers,
            self.names,
            self.images[kept],
            self.categories[kept],
            self.boxes[kept],
            self.areas[kept],
            self.crowds[kept],
            None if masks is None else [masks[place] for place in np.flatnonzero(kept)],
        )

    def unnamed(self) -> 'Truth':
        """The same objects, all of one category 'object'."""
        return Truth(
            self.ann_file,
            self.image_numbers,
            self.sizes,
            dict.fromkeys(self.category_numbers, 1),
            ['object'],
            self.images,
            np.ones_like(self.categories),
            self.boxes,
            self.areas,
            self.crowds,
            self.segmentations,
        )


@dataclass(frozen=True)
class Found:
    """N detections.

    Attributes:
        images: numbers of :class:`Truth`, [N].
        categories: likewise, [N].
        scores: [N]; of equal ones on an image the earlier one comes first.
        boxes: xywh [N, 4], pixels.
        masks: N compressed run lengths, or None.
    """

    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    masks: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def ranked(self, scores: NDArray[np.float64]) -> 'Found':
        """The same detections with other scores, [N]."""
        return replace(self, scores=scores)

    def only(self, kept: NDArray[np.bool_]) -> 'Found':
        """The detections of a choice, bool [N]."""
        masks = None if self.masks is None else [self.masks[place] for place in np.flatnonzero(kept)]
        return Found(self.images[kept], self.categories[kept], self.scores[kept], self.boxes[kept], masks)

    def unnamed(self) -> 'Found':
        """The same detections, all of category 1."""
        return replace(self, categories=np.ones_like(self.categories))

    @staticmethod
    def join(parts: Sequence['Found']) -> 'Found':
        """All detections of several tables, in their order."""
        whole = [part for part in parts if len(part)]
        masks = None
        if whole and all(part.masks is not None for part in whole):
            masks = [mask for part in whole for mask in part.masks or ()]
        return Found(
            np.concatenate([np.zeros(0, np.int64), *(part.images for part in whole)]),
            np.concatenate([np.zeros(0, np.int64), *(part.categories for part in whole)]),
            np.concatenate([np.zeros(0), *(part.scores for part in whole)]),
            np.concatenate([np.zeros((0, 4)), *(part.boxes for part in whole)]),
            masks,
        )


def read_truth(
    ann_file: str | os.PathLike[str],
    classes: Iterable[str] | None = None,
    masks: bool = False,
    agnostic: bool = False,
) -> Truth:
    """Read a file in COCO's, LVIS's or CODA's format.

    Args:
        ann_file: the file.
        classes: names of the categories to keep; None keeps all.
        masks: read the segmentations too, which every object then needs.
        agnostic: all objects become one category 'object', whatever their names.

    Raises:
        DataError: the file cannot be used, has none of the classes, or has an object of an image or category
            it does not have.
    """
    truth = truth_of(read_coco(ann_file), ann_file, classes, masks)
    return truth.unnamed() if agnostic else truth


def truth_of(
    content: Mapping[str, Any],
    ann_file: str | os.PathLike[str],
    classes: Iterable[str] | None = None,
    masks: bool = False,
) -> Truth:
    """Take the objects of a parsed file, in its order; see :func:`read_truth`.

    Raises:
        DataError: as :func:`read_truth`.
    """
    if not isinstance(content.get('annotations'), list):
        raise DataError(
            f"{ann_file} has no list 'annotations', so there is nothing to score with; name another"
        )
    images = sorted(content['images'], key=lambda one: one['id'])
    numbers = {image['id']: number for number, image in enumerate(images, 1)}
    categories = sorted(content.get('categories', []), key=lambda one: one['id'])
    known = {one['id']: one['name'] for one in categories}
    kept = _wanted(known, classes, ann_file)
    _check_objects(content['annotations'], numbers, known, ann_file)
    objects = [one for one in content['annotations'] if one['category_id'] in kept]
    if masks:
        _need_masks(objects, ann_file)
    sizes = [(image.get('height', 0), image.get('width', 0)) for image in images]
    places = {category: place for place, category in enumerate(kept, 1)}
    columns = _columns(objects, numbers, places)
    segmentations = [one['segmentation'] for one in objects] if masks else None
    return Truth(str(ann_file), numbers, sizes, places, list(kept.values()), *columns, segmentations)


def _columns(
    objects: Sequence[Mapping[str, Any]], images: Mapping[Any, int], categories: Mapping[Any, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Images, categories, boxes, areas and crowds of :class:`Truth`."""
    boxes = np.array([one['bbox'] for one in objects], np.float64).reshape(-1, 4)
    areas = [one.get('area', box[2] * box[3]) for one, box in zip(objects, boxes.tolist(), strict=True)]
    return (
        np.array([images[one['image_id']] for one in objects], np.int64),
        np.array([categories[one['category_id']] for one in objects], np.int64),
        boxes,
        np.array(areas, np.float64),
        np.array([bool(one.get('iscrowd')) for one in objects], bool),
    )


def compressed(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Return a mask as compressed run lengths.

    Args:
        segmentation: polygons, or run lengths.
        size: height and width of the image, pixels.
    """
    if isinstance(segmentation, list):
        return dict(rle.merge(rle.frPyObjects(segmentation, *size)))
    if isinstance(segmentation['counts'], list):
        return dict(rle.frPyObjects(segmentation, *segmentation['size']))
    return dict(segmentation)


def _wanted(known: dict[Any, str], classes: Iterable[str] | None, ann_file: Any) -> dict[Any, str]:
    """The categories to score, in order of ids."""
    if classes is None:
        return known
    wanted = set(classes)
    kept = {key: name for key, name in known.items() if name in wanted}
    if not kept:
        raise DataError(
            f'{ann_file} has none of the classes {", ".join(sorted(wanted)[:5])}, but '
            f'{", ".join(list(known.values())[:5]) or "no category"}; set the classes to names of the file'
        )
    return kept


def _check_objects(
    objects: Sequence[Mapping[str, Any]],
    images: Mapping[Any, int],
    categories: Mapping[Any, str],
    ann_file: Any,
) -> None:
    for one in objects:
        if one['image_id'] not in images or one['category_id'] not in categories:
            raise DataError(
                f'annotation {one.get("id")} of {ann_file} is of image {one["image_id"]} and category '
                f'{one["category_id"]}, one of which the file does not have; {WAY_OUT}'
            )
        if len(one.get('bbox') or ()) != 4:
            raise DataError(
                f'annotation {one.get("id")} of {ann_file} has the box {one.get("bbox")}, which must be '
                f'[x, y, width, height]; {WAY_OUT}'
            )


def _need_masks(objects: Iterable[Mapping[str, Any]], ann_file: Any) -> None:
    for one in objects:
        if not one.get('segmentation'):
            raise DataError(
                f'annotation {one.get("id")} of {ann_file} has no segmentation, which masks are scored with; '
                "choose metric='bbox'"
            )
