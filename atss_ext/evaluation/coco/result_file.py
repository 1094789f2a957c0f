"""A result file in COCO's format, checked row by row before anything is scored."""

import math
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atss_ext.datasets.annotation_checks.table import float_of
from atss_ext.datasets.checks import DataError, parse_json
from atss_ext.datasets.segmentation import segmentation_faults
from atss_ext.evaluation.annotations import ID, compressed, is_id
from atss_ext.evaluation.coco.table import Found, Truth

Results = list[dict[str, Any]]

NO_BOX = (0.0, 0.0, 0.0, 0.0)
"""Stands for the box of a result that has a mask only."""


def read_results(path: str | os.PathLike[str]) -> Results:
    """Parse a result file.

    Raises:
        DataError: it is missing, no JSON, or no list of detections.
    """
    if not Path(path).is_file():
        raise DataError(f'result file {path} does not exist; correct the path')
    content = parse_json(path, f'result file {path}')
    if not isinstance(content, list):
        what = (
            f'an object with {", ".join(map(repr, list(content)[:4]))}'
            if isinstance(content, dict)
            else content
        )
        raise DataError(
            f'result file {path} must be a list of detections, but is {what}; COCO results look like '
            '[{"image_id": 1, "category_id": 1, "bbox": [x, y, width, height], "score": 0.5}]'
        )
    return content


def check_results(
    results: Results,
    path: str | os.PathLike[str],
    images: Mapping[Any, Any],
    categories: Mapping[Any, str] | None,
    ann_file: str,
    metrics: Sequence[str] = ('bbox',),
    by_name: bool = False,
) -> None:
    """Refuse results that do not fit to an annotation file.

    Whether there are masks is seen here, and whether they fit to their images where they are read.

    Args:
        results: the rows.
        path: the result file, for messages.
        images: the file's image ids, as keys.
        categories: the name of each of the file's category ids; None where they do not count.
        ann_file: the annotation file, for messages.
        metrics: 'bbox' and 'segm' as needed.
        by_name: rows that have a ``name`` need no category, and whatever names they like.

    Raises:
        DataError: at the first row that cannot be scored.
    """
    for place, row in enumerate(results):
        fault = _fault(row, images, categories, ann_file, metrics, by_name)
        if fault:
            raise DataError(f'detection {place} of {path} {fault}')


def found_of(results: Results, truth: Truth, numbers: Mapping[Any, int] | None, masks: bool) -> Found:
    """Checked results as columns, in the file's order.

    Args:
        results: the rows.
        truth: the objects they are compared with.
        numbers: the number of each category id, others are left out; None where names do not count.
        masks: whether masks are needed.

    Raises:
        DataError: a mask does not fit to its image.
    """
    rows = results if numbers is None else [one for one in results if one['category_id'] in numbers]
    places = [truth.image_numbers[one['image_id']] for one in rows]
    regions = None
    if masks:
        sizes = [truth.sizes[place - 1] for place in places]
        for place, fault in segmentation_faults((one['segmentation'] for one in rows), sizes):
            raise DataError(f'detection {_place(results, rows[place])} {fault.text}')
        regions = [compressed(one['segmentation'], size) for one, size in zip(rows, sizes, strict=True)]
    # Masks are scored without boxes.
    boxes = [one.get('bbox') or NO_BOX for one in rows]
    return Found(
        np.array(places, np.int64),
        np.array([1 if numbers is None else numbers[one['category_id']] for one in rows], np.int64),
        np.array([one['score'] for one in rows], np.float64),
        np.array(boxes, np.float64).reshape(-1, 4),
        regions,
    )


def _fault(
    row: Any,
    images: Mapping[Any, Any],
    categories: Mapping[Any, str] | None,
    ann_file: str,
    metrics: Sequence[str],
    by_name: bool,
) -> str | None:
    """What is wrong with a row and how to mend it, or None."""
    if not isinstance(row, dict):
        return f'is {reprlib.repr(row)}; an object with image_id, category_id, bbox and score is needed there'
    image = row.get('image_id')
    if not is_id(image):
        return f'has the image_id {reprlib.repr(image)}, which {ID}'
    if image not in images:
        return f'is of image {image!r}, which {ann_file} does not have; score it with the file of its images'
    if categories is not None and not (by_name and isinstance(row.get('name'), str)):
        fault = _category_fault(row, categories, ann_file)
        if fault:
            return fault
    if not is_number(row.get('score')):
        return f'has the score {reprlib.repr(row.get("score"))}; it must be a finite number'
    if 'bbox' in metrics or 'bbox' in row:
        box = row.get('bbox')
        if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
            return f'has the box {reprlib.repr(box)}; it must be four finite numbers [x, y, width, height]'
        if box[2] < 0 or box[3] < 0:
            shown = reprlib.repr(box)
            return f'has the box {shown}, of negative size; it must be [x, y, width, height], not two corners'
    return _mask_fault(row.get('segmentation')) if 'segm' in metrics else None


def _category_fault(row: Mapping[str, Any], categories: Mapping[Any, str], ann_file: str) -> str | None:
    category, name = row.get('category_id'), row.get('name')
    if not is_id(category):
        return f'has the category_id {reprlib.repr(category)}, which {ID}'
    if category not in categories:
        return (
            f'has the category_id {category!r}, which {ann_file} does not have; write the ids of that file, '
            'not labels counted from 0'
        )
    # An open-ended model writes one category for everything: its scores would mean nothing.
    if isinstance(name, str) and name != categories[category]:
        return (
            f'has the name {name!r}, but its category {category} is {categories[category]!r}; bring '
            'free names to categories first, by tools/map_names.py'
        )
    return None


def _mask_fault(segmentation: Any) -> str | None:
    """Whether there is none; whether it fits to its image is for :func:`found_of`, which knows sizes."""
    if isinstance(segmentation, dict | list) and segmentation:
        return None
    return f'has the segmentation {segmentation!r}, which masks are scored with; score it with --metric bbox'


def _place(results: Results, row: Mapping[str, Any]) -> int:
    return next(place for place, one in enumerate(results) if one is row)


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number; true is none."""
    number = float_of(value)
    return number is not None and math.isfinite(number)
