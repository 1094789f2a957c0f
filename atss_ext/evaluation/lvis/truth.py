"""The objects of an LVIS file, and what each of its images was searched for.

Source: Gupta, Dollar, Girshick, *LVIS* (CVPR 2019), section 3: of an image only the categories that it shows
(positive) and those of ``neg_category_ids`` are known; of ``not_exhaustive_category_ids`` some objects may be
unlabelled.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.annotation_checks.lvis import LISTS
from atss_ext.datasets.checks import DataError, read_coco
from atss_ext.evaluation.annotations import Annotations, Entry, compressed, place_of_name, take_annotations

FREQUENCIES = ('r', 'c', 'f')
"""Rare, common, frequent: in up to 10, up to 100, more images of LVIS's training set."""


@dataclass(frozen=True)
class Objects:
    """G objects, those of a pair in the file's order.

    Attributes:
        pairs: of image and category, [G].
        areas: [G], square pixels; the file's.
        boxes: xywh [G, 4], pixels.
        ignore: bool [G]; found or not, they do not count.
        segmentations: the file's; None where no masks were read.
        sizes: height and width of their images, pixels.
    """

    pairs: NDArray[np.int64]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    ignore: NDArray[np.bool_]
    segmentations: Sequence[Any] | None
    sizes: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.areas)

    def part(self, start: int, end: int) -> 'Objects':
        """Those from one place to before another."""
        some = slice(start, end)
        segmentations = None if self.segmentations is None else self.segmentations[some]
        columns = (self.pairs[some], self.areas[some], self.boxes[some], self.ignore[some])
        return Objects(*columns, segmentations, self.sizes[some])

    def run_lengths(self) -> list[dict[str, Any]]:
        """The masks, made when they are asked for: those of a whole file need not fit into memory.

        Raises:
            ValueError: no masks were read.
        """
        return [self.mask(place) for place in range(len(self))]

    def mask(self, place: int) -> dict[str, Any]:
        """The mask of one object, as :meth:`run_lengths`."""
        if self.segmentations is None:
            raise ValueError('masks cannot be scored by annotations that were read with masks=False')
        return compressed(self.segmentations[place], self.sizes[place])


class LvisTruth:
    """An LVIS annotation file, ordered for scoring.

    A pair (image, category) is one number, ``image row * categories + category row``.

    Args:
        content: the parsed file.
        ann_file: its path, for messages.
        classes: names of the categories to score; None scores all.
        masks: keep the segmentations; boxes need none, and they weigh most.

    Attributes:
        image_rows: the row of each image id; rows are in order of ids.
        category_rows: the row of each category id, likewise.
        names: of the K categories, by row.
        frequencies: of each, its place in :data:`FREQUENCIES`, [K].
        searched: sorted numbers of the pairs that detections count for.
        partial: sorted numbers of those whose unmatched detections are ignored.
        objects: all that count or are ignored, by pairs.

    Raises:
        DataError: there is something missing that LVIS's evaluation needs, or a class is no category.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        ann_file: str = 'the file',
        classes: Iterable[str] | None = None,
        masks: bool = True,
    ) -> None:
        self.ann_file = ann_file
        file = take_annotations(content, ann_file, mark='ignore', needs_area=True)
        categories = _categories(file, classes)
        sizes = file.sizes(masks)
        self.image_rows = {image['id']: row for row, image in enumerate(file.images)}
        self.category_rows = {category['id']: row for row, category in enumerate(categories)}
        self.names = [category['name'] for category in categories]
        self.frequencies = np.array([_frequency(one, ann_file) for one in categories], np.int64)
        self._images = list(zip(self.image_rows, sizes, strict=True))
        self._sizes = dict(self._images)
        self.objects = self._group(file, sizes, masks)
        self._positive, self._starts = np.unique(self.objects.pairs, return_index=True)
        self._ends = np.append(self._starts[1:], len(self.objects))
        negative, self.partial = (
            listed_pairs(file.images, self.category_rows, key, ann_file) for key in LISTS
        )
        self.searched = np.union1d(negative, self._positive)

    @classmethod
    def read(cls, ann_file: str, classes: Iterable[str] | None = None, masks: bool = True) -> 'LvisTruth':
        """Read a file; see the class for arguments and errors."""
        return cls(read_coco(ann_file), ann_file, classes, masks)

    def rows_of_classes(self, classes: Sequence[str] | None) -> NDArray[np.int64]:
        """The category row of each label: by name, or in order of ids where there are no names.

        Raises:
            DataError: two categories have the same name.
        """
        if classes is None:
            return np.arange(len(self.names), dtype=np.int64)
        rows = place_of_name(self.names, self.ann_file)
        return np.array([rows[name] for name in classes], np.int64)

    def pairs(self, image_row: int, category_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of pairs of one image with categories."""
        return image_row * len(self.names) + category_rows

    def has_objects(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which pairs have objects."""
        return contains(pairs, self._positive)

    def objects_of(self, pair: int) -> Objects | None:
        """The objects of a pair, None where there is none."""
        place = int(np.searchsorted(self._positive, pair))
        if place == len(self._positive) or self._positive[place] != pair:
            return None
        return self.objects.part(int(self._starts[place]), int(self._ends[place]))

    def image_size(self, identity: int) -> tuple[int, int]:
        """Height and width of the image with this id, pixels."""
        return self._sizes[identity]

    def image_at(self, row: int) -> tuple[int, tuple[int, int]]:
        """The id of the image in this row, and its height and width, pixels."""
        return self._images[row]

    def _group(self, file: Annotations, sizes: Sequence[tuple[int, int]], masks: bool) -> Objects:
        rows_of = [self.category_rows.get(category['id'], -1) for category in file.categories]
        categories = np.array([*rows_of, -1], np.int64)[file.category_rows]
        # An object without area is none: its image is not positive for its category by it either.
        known = np.flatnonzero((categories >= 0) & (file.areas > 0))
        if masks:
            file.check_masks(known.tolist(), sizes)
        pairs = file.image_rows[known] * len(self.names) + categories[known]
        order = np.argsort(pairs, kind='stable')
        rows = known[order]
        return Objects(
            pairs[order],
            file.areas[rows],
            file.boxes[rows],
            file.marked[rows],
            [file.objects[row]['segmentation'] for row in rows.tolist()] if masks else None,
            [sizes[image] for image in file.image_rows[rows].tolist()],
        )


def listed_pairs(
    images: Sequence[Entry], category_rows: Mapping[Any, int], key: str, ann_file: str
) -> NDArray[np.int64]:
    """The pairs of images and categories that a file lists at its images.

    Args:
        images: by row.
        category_rows: the row of each category id that is scored; others are passed over.
        key: one of :data:`~atss_ext.datasets.annotation_checks.lvis.LISTS`.
        ann_file: the file, for messages.

    Returns:
        ``image row * categories + category row``, ascending.

    Raises:
        DataError: an image has no such list, or something else than ids in it.
    """
    numbers = []
    for row, image in enumerate(images):
        listed = image.get(key)
        if not isinstance(listed, list):
            raise DataError(
                f"image {image['id']} of {ann_file} has no list '{key}'; LVIS is scored with the files of "
                'LVIS v1, other data with CocoMetric'
            )
        if not set(map(type, listed)) <= {int, str}:
            raise DataError(
                f"image {image['id']} of {ann_file} has {reprlib.repr(listed)} for '{key}', which must be "
                'ids of categories; fetch the file again'
            )
        known = (category_rows.get(category) for category in listed)
        numbers += [row * len(category_rows) + category for category in known if category is not None]
    return np.unique(np.array(numbers, np.int64))


def contains(numbers: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which numbers occur among sorted ones; as np.isin, which sorts again each time."""
    if not len(among):
        return np.zeros(len(numbers), bool)
    places = np.minimum(np.searchsorted(among, numbers), len(among) - 1)
    found: NDArray[np.bool_] = among[places] == numbers
    return found


def _categories(file: Annotations, classes: Iterable[str] | None) -> list[Entry]:
    """The categories to score, in order of ids."""
    if classes is None:
        return file.categories
    wanted = list(classes)
    names = {one['name'] for one in file.categories}
    odd = next((name for name in wanted if name not in names), None)
    if odd is not None:
        raise DataError(
            f"{file.ann_file} has no category '{odd}', which is a class of the dataset; set the dataset's "
            "metainfo=dict(classes=(...)) to the file's names"
        )
    return [one for one in file.categories if one['name'] in set(wanted)]


def _frequency(category: Entry, ann_file: str) -> int:
    if category.get('frequency') not in FREQUENCIES:
        raise DataError(
            f'category {category["id"]} of {ann_file} has the frequency {category.get("frequency")!r}, which '
            "must be 'r', 'c' or 'f'; LVIS is scored with the files of LVIS v1"
        )
    return FREQUENCIES.index(category['frequency'])
