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

from atss_ext.datasets.checks import DataError, read_coco
from atss_ext.evaluation.annotations import place_of_name, take_annotations


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
        """The number of each category's name; raises DataError where two have the same."""
        return {name: place + 1 for name, place in place_of_name(self.names, self.ann_file).items()}

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
        DataError: the file has none of the classes, has an object that cannot be scored
            (:func:`~atss_ext.evaluation.annotations.take_annotations`), or masks are wanted and one is
            missing or does not fit to its image.
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
    file = take_annotations(content, str(ann_file))
    numbers = {image['id']: number for number, image in enumerate(file.images, 1)}
    kept = _wanted({one['id']: one['name'] for one in file.categories}, classes, ann_file)
    places = {category: place for place, category in enumerate(kept, 1)}
    category_numbers = np.array([0, *(places.get(one['id'], 0) for one in file.categories)], np.int64)
    categories = category_numbers[file.category_rows + 1]
    rows = np.flatnonzero(categories)
    sizes = file.sizes(masks)
    if masks:
        file.check_masks(rows.tolist(), sizes)
    return Truth(
        ann_file=str(ann_file),
        image_numbers=numbers,
        sizes=sizes,
        category_numbers=places,
        names=list(kept.values()),
        images=file.image_rows[rows] + 1,
        categories=categories[rows],
        boxes=file.boxes[rows],
        areas=file.areas[rows],
        crowds=file.marked[rows],
        segmentations=[file.objects[row]['segmentation'] for row in rows.tolist()] if masks else None,
    )


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
