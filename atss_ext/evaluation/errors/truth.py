"""The objects of an annotation file as columns, and what each of its images was searched for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.annotation_checks.lvis import LISTS
from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.lvis.truth import FREQUENCIES

Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Truth:
    """I images, K categories and G objects, the objects in order of images, on each the ignored ones last.

    Attributes:
        ann_file: path of the file, for messages.
        images: the file's images in order of their ids.
        category_ids: by row, ascending.
        names: of the categories, by row.
        frequencies: LVIS's letter of each category; None in other files.
        image: the image row of each object, [G].
        category: the category row of each object, [G].
        boxes: xywh [G, 4], pixels.
        areas: [G], square pixels; the file's, or the box's where it has none.
        ignore: bool [G]; found or not, these do not count.
        crowd: bool [G]; many detections may match one of these.
        searched: sorted numbers ``image row * K + category row`` of what detections count for; None if an
            image was searched for all categories (any file that is not LVIS's).
        partial: likewise, pairs whose unmatched detections are ignored.
        notes: sentences about what was left out.
    """

    ann_file: str
    images: list[Mapping[str, Any]]
    category_ids: list[int]
    names: list[str]
    frequencies: list[str] | None
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    ignore: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    searched: NDArray[np.int64] | None
    partial: NDArray[np.int64] | None
    notes: tuple[str, ...]

    @property
    def federated(self) -> bool:
        """Whether an image was searched for some categories only, as in LVIS."""
        return self.searched is not None

    @property
    def image_rows(self) -> dict[int, int]:
        """The row of each image id."""
        return {image['id']: row for row, image in enumerate(self.images)}

    @property
    def category_rows(self) -> dict[int, int]:
        """The row of each category id."""
        return {identity: row for row, identity in enumerate(self.category_ids)}


def read_truth(content: Mapping[str, Any], ann_file: str) -> Truth:
    """Order the content of an annotation file.

    As pycocotools, COCO's crowds are what is ignored, and a key ``ignore`` is not read; as lvis-api, LVIS has
    no crowds, ``ignore`` is read, and an object without area is none.

    Args:
        content: of a COCO, LVIS or CODA file (``atss_ext.datasets.checks.read_coco``).
        ann_file: its path, for messages.

    Raises:
        DataError: a list or a key is missing, or a value is no number.
    """
    _refuse_without_lists(content, ann_file)
    images = _ordered(content['images'], 'image', ann_file)
    categories = _ordered(content['categories'], 'category', ann_file)
    if not images or not categories:
        what = 'image' if not images else 'category'
        raise DataError(f'{ann_file} has no {what}, so there is nothing to report; name another file')
    federated = any(LISTS[0] in image for image in images)
    category_ids = [category['id'] for category in categories]
    objects, left_out = _known(content['annotations'], images, category_ids, federated, ann_file)
    columns = _columns(objects, images, category_ids, federated, ann_file)
    searched, partial = None, None
    if federated:
        listed, partial = (_listed(images, category_ids, key, ann_file) for key in LISTS)
        searched = np.union1d(listed, columns['image'] * len(categories) + columns['category'])
    letters = [str(category.get('frequency')) for category in categories]
    return Truth(
        ann_file=ann_file,
        images=images,
        category_ids=category_ids,
        names=[str(category.get('name', category['id'])) for category in categories],
        frequencies=letters if set(letters) <= set(FREQUENCIES) else None,
        searched=searched,
        partial=partial,
        notes=(left_out,) if left_out else (),
        **columns,
    )


def _refuse_without_lists(content: Mapping[str, Any], ann_file: str) -> None:
    for key in ('annotations', 'categories'):
        if not isinstance(content.get(key), list):
            raise DataError(
                f"{ann_file} has no list '{key}', so there is nothing to compare with; name another"
            )


def numbers(entries: Entries, key: str, kind: str, file: str) -> NDArray[np.float64]:
    """One number of each entry, [N].

    Raises:
        DataError: an entry has none.
    """
    try:
        values = np.array([entry[key] for entry in entries], np.float64)
        if values.ndim == 1 and np.isfinite(values).all():
            return values
    except (KeyError, TypeError, ValueError):
        pass
    place, value = next(
        (place, entry.get(key) if isinstance(entry, Mapping) else entry)
        for place, entry in enumerate(entries)
        if not isinstance(entry, Mapping) or not _is_number(entry.get(key))
    )
    raise DataError(f"{kind} number {place} of {file} has {value!r} for '{key}', which must be a number")


def boxes_of(entries: Entries, kind: str, file: str) -> NDArray[np.float64]:
    """The boxes, xywh [N, 4], pixels.

    Raises:
        DataError: one is missing or no four numbers.
    """
    try:
        boxes = np.array([entry['bbox'] for entry in entries], np.float64).reshape(len(entries), 4)
        if np.isfinite(boxes).all():
            return boxes
    except (KeyError, TypeError, ValueError):
        pass
    place, box = next(
        (place, entry.get('bbox')) for place, entry in enumerate(entries) if not _is_box(entry.get('bbox'))
    )
    raise DataError(
        f"{kind} number {place} of {file} has {box!r} for 'bbox', which must be four numbers "
        '[x, y, width, height]'
    )


def _is_box(box: Any) -> bool:
    return isinstance(box, Sequence) and len(box) == 4 and all(map(_is_number, box))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _ordered(entries: Iterable[Any], kind: str, ann_file: str) -> list[Mapping[str, Any]]:
    """The entries in order of their ids."""
    listed = list(entries)
    numbers(listed, 'id', kind, ann_file)
    ordered = sorted(listed, key=lambda entry: entry['id'])
    for one, after in pairwise(ordered):
        if one['id'] == after['id']:
            raise DataError(f'{kind} id {one["id"]} stands twice in {ann_file}; give each {kind} its own id')
    return ordered


def _known(
    entries: Entries, images: Entries, category_ids: list[int], federated: bool, ann_file: str
) -> tuple[list[Mapping[str, Any]], str]:
    """The annotations of images and categories that the file has, and a note on the others."""
    for key in ('image_id', 'category_id'):
        numbers(entries, key, 'annotation', ann_file)
    rows, categories = {image['id'] for image in images}, set(category_ids)
    known = [one for one in entries if one['image_id'] in rows and one['category_id'] in categories]
    lost = len(entries) - len(known)
    if federated:
        areas = numbers(known, 'area', 'annotation', ann_file)
        known = [one for one, area in zip(known, areas.tolist(), strict=True) if area > 0]
    note = f'{lost} annotations name an image or a category that {ann_file} does not have, and are left out'
    return known, note if lost else ''


def _columns(
    objects: Entries, images: Entries, category_ids: list[int], federated: bool, ann_file: str
) -> dict[str, Any]:
    rows = {image['id']: row for row, image in enumerate(images)}
    image = np.array([rows[one['image_id']] for one in objects], np.int64)
    categories = {identity: row for row, identity in enumerate(category_ids)}
    category = np.array([categories[one['category_id']] for one in objects], np.int64)
    boxes = boxes_of(objects, 'annotation', ann_file)
    areas = boxes[:, 2] * boxes[:, 3]
    given = [place for place, one in enumerate(objects) if 'area' in one]
    areas[given] = numbers([objects[place] for place in given], 'area', 'annotation', ann_file)
    mark = 'ignore' if federated else 'iscrowd'
    ignore = np.array([bool(one.get(mark)) for one in objects], bool)
    crowd = np.zeros_like(ignore) if federated else ignore
    order = np.lexsort((ignore, image))
    return {
        'image': image[order],
        'category': category[order],
        'boxes': boxes[order],
        'areas': areas[order],
        'ignore': ignore[order],
        'crowd': crowd[order],
    }


def _listed(images: Entries, category_ids: list[int], key: str, ann_file: str) -> NDArray[np.int64]:
    """The sorted numbers of the pairs (image, category) that an LVIS file lists under a key."""
    categories = {identity: row for row, identity in enumerate(category_ids)}
    pairs = []
    for row, image in enumerate(images):
        if not isinstance(image.get(key), list):
            raise DataError(
                f"image {image['id']} of {ann_file} has no list '{key}'; every image of an LVIS file has one"
            )
        pairs += [row * len(category_ids) + categories[one] for one in image[key] if one in categories]
    return np.unique(np.array(pairs, np.int64))
