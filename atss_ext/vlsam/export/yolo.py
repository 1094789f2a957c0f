"""YOLO labels: one text file an image, a line an object, coordinates as shares of the width and height."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from atss_ext.vlsam.atomic import partial_path, replacing, writable
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.export.categories import Categories
from atss_ext.vlsam.export.polygons import mask_polygon
from atss_ext.vlsam.images import IMAGE_SUFFIXES
from atss_ext.vlsam.protocols import VlsamError

Items = Iterable[tuple[str | PurePath, Detections]]

# Tells labels that may be replaced from a user's own.
_MARK = '# YOLO labels written by atss_ext'


def to_yolo_boxes(
    items: Items, folder: str | os.PathLike[str], *, categories: Sequence[str] = (), scores: bool = False
) -> Path:
    """Write boxes: ``class cx cy w h``, six decimals.

    Image ``a/b.jpg`` gets ``folder/labels/a/b.txt``; one without objects an empty file. ``classes.txt`` has
    the names, a line each, numbered from 0 as they are met; ``data.yaml`` has them too, for trainers that
    look for ``images/`` beside ``labels/``. Labels of an earlier export are replaced as a whole.

    Args:
        items: (file name below the images' folder, detections) of each image.
        folder: made if absent.
        categories: names that get the first numbers, whether or not they occur.
        scores: append the score to each line. Readers of training labels do not expect one.

    Returns:
        the folder.

    Raises:
        VlsamError: two images would share a label file, a file name leaves the folder, or the folder has
            labels that are not ours.
    """

    def lines(found: Detections, numbers: Sequence[int]) -> Iterator[str]:
        for box, number, score in zip(_unit_boxes(found), numbers, found.scores.tolist(), strict=True):
            (x1, y1), (x2, y2) = box
            if x2 > x1 and y2 > y1:
                words = _words([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
                yield f'{number} {words} {score:.6f}' if scores else f'{number} {words}'

    return _write(items, Path(folder), Categories(categories), lines)


def to_yolo_polygons(
    items: Items, folder: str | os.PathLike[str], *, categories: Sequence[str] = (), min_iou: float = 0.98
) -> Path:
    """Write outlines: ``class x1 y1 x2 y2 ...``, six decimals; at least three points, one polygon an object.

    Holes and separate parts are tied into the one polygon by bridges of no width
    (:func:`polygons.mask_polygon`). An object without a mask, or with an empty one, gets its box.

    Args:
        items: as of :func:`to_yolo_boxes`, as are the files written.
        folder: made if absent.
        categories: names that get the first numbers, whether or not they occur.
        min_iou: how well a simplified polygon must still cover the mask; 1.0 simplifies nothing.

    Returns:
        the folder.

    Raises:
        VlsamError: as of :func:`to_yolo_boxes`.
        ValueError: ``min_iou`` is not in 0..1.
    """
    if not 0 <= min_iou <= 1:
        raise ValueError(f'min_iou must be from 0 to 1, but is {min_iou}.')

    def lines(found: Detections, numbers: Sequence[int]) -> Iterator[str]:
        boxes = _unit_boxes(found)
        for index, number in enumerate(numbers):
            outline = mask_polygon(found.mask(index), min_iou) if found.run_lengths else None
            if outline is not None:
                yield f'{number} {_words(_unit(outline, found.size).ravel())}'
                continue
            (x1, y1), (x2, y2) = boxes[index]
            if x2 > x1 and y2 > y1:
                yield f'{number} {_words([x1, y1, x2, y1, x2, y2, x1, y2])}'

    return _write(items, Path(folder), Categories(categories), lines)


def check_label_names(file_names: Iterable[str]) -> None:
    """Refuse images that would share a label file, before anything is spent on them.

    Raises:
        VlsamError: there are two of them, or a name leaves the folder.
    """
    places: dict[PurePath, str] = {}
    for name in file_names:
        place = _label_path(name)
        if places.setdefault(place, name) != name:
            raise VlsamError(
                f'{name} and {places[place]} would share the label file {place}; rename one of them'
            )


def _unit(points: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float64]:
    """Points [..., 2] in pixels as shares of the image, 0..1."""
    height, width = size
    return np.clip(np.asarray(points, np.float64) / (width, height), 0, 1)


def _unit_boxes(found: Detections) -> NDArray[np.float64]:
    """Two corners [D, 2, 2] of each box, as shares of the image."""
    return _unit(found.boxes.reshape(-1, 2, 2), found.size)


def _words(values: Iterable[float]) -> str:
    return ' '.join(f'{value:.6f}' for value in values)


def _write(
    items: Items,
    folder: Path,
    categories: Categories,
    lines: Callable[[Detections, Sequence[int]], Iterator[str]],
) -> Path:
    """Write all labels beside their place, then put them there in one step."""
    labels = folder / 'labels'
    if labels.exists() and not _is_ours(folder):
        raise VlsamError(f'{labels} exists and is no export of ours; choose another folder or remove it')
    building, old = partial_path(folder), partial_path(folder)
    written: dict[PurePath, str] = {}
    with writable(folder):
        building.mkdir(parents=True)
    try:
        for file_name, found in items:
            place = _label_path(str(file_name))
            if place in written:
                raise VlsamError(
                    f'{file_name} and {written[place]} would share the label file {place}; rename one of them'
                )
            written[place] = str(file_name)
            (building / place).parent.mkdir(parents=True, exist_ok=True)
            numbers = [categories.number(name) for name in found.names]
            with open(building / place, 'w', encoding='ascii', newline='\n') as file:
                file.writelines(f'{line}\n' for line in lines(found, numbers))
        if labels.exists():
            os.replace(labels, old)
        os.replace(building, labels)
        _write_names(folder, categories.names)
    finally:
        for left in (building, old):
            shutil.rmtree(left, ignore_errors=True)
    return folder


def _label_path(file_name: str) -> PurePath:
    """Of an image ``a/b.jpg``: ``a/b.txt``."""
    path = PurePath(file_name)
    path = path.relative_to(path.anchor)
    if '..' in path.parts or not path.name:
        raise VlsamError(
            f'image {file_name} lies outside of the labels; pass its path below the folder of all images'
        )
    # Frames of a video have numbers that look like suffixes.
    return (
        path.with_suffix('.txt')
        if path.suffix.lower() in IMAGE_SUFFIXES
        else path.with_name(f'{path.name}.txt')
    )


def _is_ours(folder: Path) -> bool:
    try:
        return (folder / 'data.yaml').read_text(encoding='utf-8').startswith(_MARK)
    except (OSError, ValueError):
        return False


def _write_names(folder: Path, names: Sequence[str]) -> None:
    with replacing(folder / 'classes.txt') as file:
        file.writelines(f'{name}\n' for name in names)
    with replacing(folder / 'data.yaml') as file:
        file.write(f'{_MARK}; put the images into images/, beside labels/.\n')
        file.write('train: images\nval: images\n')
        file.write('names:\n' if names else 'names: {}\n')
        file.writelines(f'  {number}: {_quoted(name)}\n' for number, name in enumerate(names))


def _quoted(name: str) -> str:
    """A string in YAML: as in JSON, and what cannot be printed escaped."""
    text = json.dumps(name, ensure_ascii=False)
    return ''.join(letter if letter.isprintable() else f'\\U{ord(letter):08x}' for letter in text)
