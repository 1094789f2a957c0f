"""The annotations that every scorer reads, checked once and the same for all of them.

``tools/datasets/check_annotations.py`` lists everything that is wrong with a file. Here the first fault that
would end a scorer or make its figures wrong is refused; what only training trips over is not.
"""

import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.datasets.annotation_checks.table import float_of, number_rows, numbers
from atss_ext.datasets.checks import DataError, flag_fault
from atss_ext.datasets.segmentation import MAX_SIDE, Size, segmentation_faults
from atss_ext.evaluation.boxes import areas_of

WAY_OUT = 'tools/datasets/check_annotations.py lists such faults'

MAX_PIXELS = 2**31
"""Pixels of an image whose masks can be compared: pycocotools counts them in 32 bits."""

ID = 'must be a whole number or a text'
"""What ids of images and categories are, in files of annotations and of results."""

Entry = Mapping[str, Any]
_SECTIONS = {'image': 'images', 'category': 'categories', 'annotation': 'annotations'}


@dataclass(frozen=True)
class Annotations:
    """I images, K categories and G objects of a file, fit to score with.

    Attributes:
        ann_file: the file, for messages.
        images: in order of their ids.
        categories: in order of their ids.
        objects: in the file's order.
        image_rows: the place of each object's image, [G].
        category_rows: the place of each object's category, [G].
        boxes: xywh [G, 4], pixels; finite, of no negative size.
        areas: [G], square pixels, finite and not negative; the file's, or the box's where it says none.
        marked: bool [G], the flag that takes an object out of the count.
    """

    ann_file: str
    images: list[Entry]
    categories: list[Entry]
    objects: list[Entry]
    image_rows: NDArray[np.int64]
    category_rows: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    marked: NDArray[np.bool_]

    def sizes(self, masks: bool) -> list[Size]:
        """Height and width of each image, pixels; (0, 0) where the file says none and no masks are scored.

        Args:
            masks: whether masks are scored, which every image needs its size for.

        Raises:
            DataError: an image that masks are scored on has no size, or none that can be.
        """
        sizes = [_size(image) for image in self.images]
        if masks and None in sizes:
            image = self.images[sizes.index(None)]
            shown = reprlib.repr([image.get('height'), image.get('width')])
            raise DataError(
                f'image {image["id"]} of {self.ann_file} has the height and width {shown}, which masks are '
                f'scored with; write whole numbers from 1 to {MAX_SIDE} of {MAX_PIXELS} pixels at most, or '
                "choose metric='bbox'"
            )
        return [size or (0, 0) for size in sizes]

    def check_masks(self, rows: Sequence[int], sizes: Sequence[Size]) -> None:
        """Refuse segmentations that cannot be compared.

        Args:
            rows: of the objects whose masks are scored.
            sizes: of all images.

        Raises:
            DataError: one is missing, or does not fit to its image.
        """
        objects = [self.objects[row] for row in rows]
        for row, one in zip(rows, objects, strict=True):
            if not one.get('segmentation'):
                self.refuse(row, "has no segmentation, which masks are scored with; choose metric='bbox'")
        of_objects = [sizes[image] for image in self.image_rows[np.asarray(rows, np.int64)].tolist()]
        for place, fault in segmentation_faults([one['segmentation'] for one in objects], of_objects):
            self.refuse(rows[place], fault.text)

    def refuse(self, row: int, fault: str) -> NoReturn:
        """Raise DataError about an object."""
        raise _fault_of(self.objects, row, self.ann_file, fault)


def take_annotations(
    content: Entry, ann_file: str, mark: Literal['iscrowd', 'ignore'] = 'iscrowd', needs_area: bool = False
) -> Annotations:
    """Check and order the content of a file.

    Args:
        content: a parsed file that has a list ``images`` (``atss_ext.datasets.checks.read_coco``).
        ann_file: its path, for messages.
        mark: the key of the flag: COCO's crowds, or LVIS's ``ignore``.
        needs_area: whether an object has to say its area.

    Raises:
        DataError: a list is missing, an entry is no object, an id is missing, twice there or of mixed types,
            a category has no name, an object is of an image or a category that the file does not have, or
            its box, area or flag is none.
    """
    images = _ordered(_with_ids(content, 'image', ann_file))
    categories = _ordered(take_categories(content, ann_file))
    if not isinstance(content.get('annotations'), list):
        raise DataError(
            f"{ann_file} has no list 'annotations', so there is nothing to score with; name the annotations "
            'of a train or val set'
        )
    objects = _entries(content, 'annotation', ann_file)
    image_rows, category_rows = _references(objects, images, categories, ann_file)
    boxes = _boxes(objects, ann_file)
    areas = _areas(objects, boxes, needs_area, ann_file)
    marked = _flags(objects, mark, ann_file)
    return Annotations(ann_file, images, categories, objects, image_rows, category_rows, boxes, areas, marked)


def take_categories(content: Entry, ann_file: str) -> list[Entry]:
    """Check the categories of a file, which stay in its order.

    Args:
        content: a parsed file.
        ann_file: its path, for messages.

    Raises:
        DataError: it has no list of them, an entry is no object, an id is missing, twice there or of mixed
            types, or a name is no text.
    """
    categories = _with_ids(content, 'category', ann_file)
    for one in categories:
        if not isinstance(one.get('name'), str):
            shown = reprlib.repr(one.get('name'))
            raise DataError(
                f'category {one["id"]} of {ann_file} has the name {shown}, which must be a text; {WAY_OUT}'
            )
    return categories


def place_of_name(names: Sequence[str], ann_file: str) -> dict[str, int]:
    """The place of each category's name, for what is brought to categories by names.

    Raises:
        DataError: two categories have the same name, so that nobody knows which one is meant.
    """
    places = {name: place for place, name in enumerate(names)}
    if len(places) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"two categories of {ann_file} are called '{twice}'; give each its own name")
    return places


def is_id(value: Any) -> bool:
    """Whether a value can be the id of an image or a category; 1.0 and true are none."""
    return type(value) in (int, str)


def compressed(segmentation: Any, size: Size) -> dict[str, Any]:
    """Return a mask as compressed run lengths.

    Args:
        segmentation: polygons, or run lengths of either kind; of an image of this size
            (:func:`~atss_ext.datasets.segmentation.segmentation_fault`).
        size: height and width of the image, pixels.
    """
    if isinstance(segmentation, list):
        return dict(rle.merge(rle.frPyObjects(segmentation, *size)))
    if isinstance(segmentation['counts'], list):
        return dict(rle.frPyObjects(segmentation, *size))
    return dict(segmentation)


def _fault_of(objects: Sequence[Entry], row: int, ann_file: str, fault: str) -> DataError:
    name = objects[row].get('id')
    shown = f'annotation {name}' if is_id(name) else f'annotation number {row}'
    return DataError(f'{shown} of {ann_file} {fault}')


def _entries(content: Entry, kind: str, ann_file: str) -> list[Entry]:
    section = _SECTIONS[kind]
    entries = content.get(section, [])
    if not isinstance(entries, list):
        raise DataError(
            f"'{section}' of {ann_file} is {reprlib.repr(entries)}, which must be a list; {WAY_OUT}"
        )
    for place, one in enumerate(entries):
        if not isinstance(one, dict):
            raise DataError(
                f'{kind} number {place} of {ann_file} is {reprlib.repr(one)}; COCO format has an object there'
            )
    return entries


def _ordered(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry['id'])


def _with_ids(content: Entry, kind: str, ann_file: str) -> list[Entry]:
    """The images or categories, each with an id of its own."""
    entries = _entries(content, kind, ann_file)
    ids = [one.get('id') for one in entries]
    types = set(map(type, ids))
    if not types <= {int, str}:
        place = next(place for place, value in enumerate(ids) if not is_id(value))
        fault = f'has the id {reprlib.repr(ids[place])}, which {ID}'
        raise DataError(f'{kind} number {place} of {ann_file} {fault}; {WAY_OUT}')
    if len(types) > 1:
        one, other = (next(value for value in ids if type(value) is kept) for kept in (int, str))
        raise DataError(
            f'{ann_file} has the {kind} ids {one} and {other!r}, a number and a text; write all ids alike'
        )
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f'{kind} id {twice} stands twice in {ann_file}; give each {kind} its own id')
    return entries


def _references(
    objects: list[Entry], images: list[Entry], categories: list[Entry], ann_file: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of each object's image and category, [G] each."""
    rows = []
    for kind, known in (('image', images), ('category', categories)):
        wanted = [one.get(f'{kind}_id') for one in objects]
        if not set(map(type, wanted)) <= {int, str}:
            row = next(row for row, value in enumerate(wanted) if not is_id(value))
            fault = f'has the {kind}_id {reprlib.repr(wanted[row])}, which {ID}; {WAY_OUT}'
            raise _fault_of(objects, row, ann_file, fault)
        index = {one['id']: row for row, one in enumerate(known)}
        rows.append(np.array([index.get(value, -1) for value in wanted], np.int64))
    lost = np.minimum(*rows) < 0
    if lost.any():
        row = int(lost.argmax())
        names = f'image {objects[row]["image_id"]!r} and category {objects[row]["category_id"]!r}'
        fault = f'is of {names}, one of which the file does not have; {WAY_OUT}'
        raise _fault_of(objects, row, ann_file, fault)
    return rows[0], rows[1]


def _boxes(objects: list[Entry], ann_file: str) -> NDArray[np.float64]:
    boxes, bad = number_rows([one.get('bbox') for one in objects], 4)
    bad |= ~np.isfinite(boxes).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        shown = reprlib.repr(objects[row].get('bbox'))
        raise _fault_of(
            objects, row, ann_file, f'has the box {shown}, which must be [x, y, width, height]; {WAY_OUT}'
        )
    negative = (boxes[:, 2:] < 0).any(axis=1)
    if negative.any():
        row = int(negative.argmax())
        fault = f'has the box {boxes[row].tolist()}, of negative size; write [x, y, width, height]'
        raise _fault_of(objects, row, ann_file, fault)
    return boxes


def _areas(
    objects: list[Entry], boxes: NDArray[np.float64], needed: bool, ann_file: str
) -> NDArray[np.float64]:
    areas, bad = numbers(objects, 'area')
    if bad.any() and not needed:
        absent = np.array(['area' not in one for one in objects])
        areas = np.where(absent, areas_of(boxes), areas)
        bad &= ~absent
    bad |= ~np.isfinite(areas) | (areas < 0)
    if bad.any():
        row = int(bad.argmax())
        # Where the file says none, it is the box's.
        value = objects[row].get('area', None if needed else float(areas[row]))
        fault = f'has the area {reprlib.repr(value)}, which must be a finite number, not below 0'
        raise _fault_of(objects, row, ann_file, f'{fault}; write its square pixels')
    return areas


def _flags(objects: list[Entry], key: str, ann_file: str) -> NDArray[np.bool_]:
    flags = [one.get(key) for one in objects]
    if not set(map(type, flags)) <= {int, bool, type(None)} or not set(flags) <= {0, 1, None}:
        for row, flag in enumerate(flags):
            fault = flag_fault(flag, key)
            if fault:
                raise _fault_of(objects, row, ann_file, f'{fault}; {WAY_OUT}')
    return np.array(list(map(bool, flags)), bool)


def _size(image: Entry) -> Size | None:
    """Height and width of an image, None where they are no whole numbers that masks can be of."""
    sides = [float_of(image.get(key)) for key in ('height', 'width')]
    whole = [int(side) for side in sides if side is not None and 0 < side <= MAX_SIDE and side == int(side)]
    return (whole[0], whole[1]) if len(whole) == 2 and whole[0] * whole[1] <= MAX_PIXELS else None
