"""The objects of an annotation file as columns, and what each of its images was searched for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.annotation_checks.lvis import LISTS
from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.annotations import Annotations, take_annotations
from atss_ext.evaluation.lvis.truth import FREQUENCIES, listed_pairs


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
        DataError: the file has no image or category, or something that cannot be scored
            (:func:`~atss_ext.evaluation.annotations.take_annotations`).
    """
    images_listed = content.get('images')
    federated = isinstance(images_listed, list) and any(
        isinstance(image, dict) and LISTS[0] in image for image in images_listed
    )
    file = take_annotations(content, ann_file, 'ignore' if federated else 'iscrowd', needs_area=federated)
    if not file.images or not file.categories:
        what = 'image' if not file.images else 'category'
        raise DataError(f'{ann_file} has no {what}, so there is nothing to report; name another file')
    category_ids = [category['id'] for category in file.categories]
    columns = _columns(file, federated)
    searched, partial = None, None
    if federated:
        rows = {identity: row for row, identity in enumerate(category_ids)}
        listed, partial = (listed_pairs(file.images, rows, key, ann_file) for key in LISTS)
        searched = np.union1d(listed, columns['image'] * len(category_ids) + columns['category'])
    letters = [str(category.get('frequency')) for category in file.categories]
    return Truth(
        ann_file=ann_file,
        images=file.images,
        category_ids=category_ids,
        names=[category['name'] for category in file.categories],
        frequencies=letters if set(letters) <= set(FREQUENCIES) else None,
        searched=searched,
        partial=partial,
        **columns,
    )


def _columns(file: Annotations, federated: bool) -> dict[str, Any]:
    # LVIS has no crowds, and an object without area is none.
    kept = np.flatnonzero(file.areas > 0) if federated else np.arange(len(file.objects))
    order = kept[np.lexsort((file.marked[kept], file.image_rows[kept]))]
    ignore = file.marked[order]
    return {
        'image': file.image_rows[order],
        'category': file.category_rows[order],
        'boxes': file.boxes[order],
        'areas': file.areas[order],
        'ignore': ignore,
        'crowd': np.zeros_like(ignore) if federated else ignore,
    }
