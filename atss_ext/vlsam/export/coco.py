"""COCO json: a dataset that any COCO tool opens, and the plain form of results."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
from pycocotools import mask as rle

from atss_ext.vlsam.atomic import replacing
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.export.categories import Categories
from atss_ext.vlsam.protocols import VlsamError
from atss_ext.vlsam.run_lengths import as_text

Items = Iterable[tuple[str | PurePath, Detections]]
ImageId = int | str


def to_coco(
    items: Items,
    path: str | os.PathLike[str],
    *,
    image_ids: Iterable[ImageId] | None = None,
    categories: Sequence[str] = (),
    tracks: Mapping[str, Sequence[int]] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Write a COCO dataset whose annotations are the detections.

    An annotation has ``bbox`` (x, y, width, height), ``area`` (of the mask), ``iscrowd`` 0, ``segmentation``
    (compressed run lengths, ``counts`` a string), ``score`` and the ``name`` the VLM gave. Categories are
    the names, numbered from 1 as they are met. The file is written while ``items`` are read: memory grows
    with the number of images' names only.

    Args:
        items: (file name, detections) of each image; those of an image without any objects too.
        path: the file, written whole or not at all.
        image_ids: one for each item; the default is 1, 2, ...
        categories: names that get the first ids, whether or not they occur.
        tracks: of a video's frames, file name -> one number for each object, written as ``track_id``.
        info: of the dataset.

    Returns:
        the path.

    Raises:
        ValueError: ids that are not as many as items, or not different.
        LookupError: an object without a track.
    """
    numbers, total = Categories(categories), 0
    with replacing(path) as file, tempfile.TemporaryFile('w+', encoding='utf-8') as images:
        file.write(f'{{"info": {_json(dict(info or {}))}, "annotations": [')
        for image_id, name, found in _numbered(items, image_ids):
            height, width = (int(side) for side in found.size)
            entry = {'id': image_id, 'file_name': name, 'width': width, 'height': height}
            _append(images, entry, first=images.tell() == 0)
            for index, row in enumerate(_objects(found)):
                total += 1
                row |= {'id': total, 'image_id': image_id, 'iscrowd': 0, 'name': found.names[index]}
                row['category_id'] = 1 + numbers.number(found.names[index])
                if tracks is not None:
                    row['track_id'] = int(tracks[name][index])
                _append(file, row, first=total == 1)
        rows = [{'id': number, 'name': name} for number, name in enumerate(numbers.names, start=1)]
        file.write(f'\n], "categories": {_json(rows)}, "images": [')
        images.seek(0)
        shutil.copyfileobj(images, file)
        file.write('\n]}\n')
    return Path(path)


def to_coco_results(
    items: Items,
    path: str | os.PathLike[str],
    image_ids: Mapping[str, ImageId],
    category_ids: Mapping[str, int],
    *,
    skip_unknown: bool = False,
) -> Path:
    """Write detections in COCO's result form: a list of image_id, category_id, bbox, score, segmentation.

    Args:
        items: (file name, detections) of each image.
        path: the file, written whole or not at all.
        image_ids: file name -> id in the dataset that the results are for.
        category_ids: name -> id in that dataset.
        skip_unknown: leave out objects of a name without an id, instead of refusing them.

    Returns:
        the path.

    Raises:
        VlsamError: an image or a name has no id.
    """
    total = 0
    with replacing(path) as file:
        file.write('[')
        for file_name, found in items:
            image_id = image_ids.get(_posix(file_name))
            if image_id is None:
                raise VlsamError(f'image {file_name} has no id in image_ids; add it, or leave the image out')
            for name, row in zip(found.names, _objects(found), strict=True):
                if name not in category_ids:
                    if skip_unknown:
                        continue
                    raise VlsamError(
                        f'the name {name!r} has no id in category_ids; map it, or pass skip_unknown=True'
                    )
                row.pop('area')
                row |= {'image_id': image_id, 'category_id': int(category_ids[name])}
                _append(file, row, first=total == 0)
                total += 1
        file.write('\n]\n')
    return Path(path)


def _numbered(items: Items, image_ids: Iterable[ImageId] | None) -> Iterator[tuple[ImageId, str, Detections]]:
    """(id, file name, detections) of each image."""
    if image_ids is None:
        for number, (file_name, found) in enumerate(items, start=1):
            yield number, _posix(file_name), found
        return
    seen: set[ImageId] = set()
    for image_id, (file_name, found) in zip(image_ids, items, strict=True):
        if image_id in seen:
            raise ValueError(f'image_ids must be different, but {image_id!r} occurs twice.')
        seen.add(image_id)
        yield image_id, _posix(file_name), found


def _objects(found: Detections) -> Iterator[dict[str, Any]]:
    """bbox, area, score and segmentation of each object."""
    rows = zip(found.boxes.astype(np.float64).tolist(), found.scores.tolist(), strict=True)
    for index, ((x1, y1, x2, y2), score) in enumerate(rows):
        row = {'bbox': [x1, y1, x2 - x1, y2 - y1], 'score': score, 'area': (x2 - x1) * (y2 - y1)}
        if found.run_lengths:
            row['area'] = int(rle.area(found.run_lengths[index]))
            row['segmentation'] = as_text(found.run_lengths[index])
        yield row


def _posix(file_name: str | PurePath) -> str:
    return file_name.as_posix() if isinstance(file_name, PurePath) else str(file_name)


def _append(file: IO[str], row: dict[str, Any], first: bool) -> None:
    file.write(('\n' if first else ',\n') + _json(row))


def _json(value: Any) -> str:
    # ASCII, because pycocotools opens files in whatever encoding the system has.
    return json.dumps(value, separators=(',', ':'), allow_nan=False)
