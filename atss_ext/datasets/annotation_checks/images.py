"""Checks of the image files that an annotation file names: that they are there, and as large as it says."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from atss_ext.datasets.annotation_checks.table import Finding, Table, found, section_of

Progress = Callable[[int, int], None]

COCO_URL = 'http://images.cocodataset.org/'
_EXIF_ORIENTATION = 0x0112
_STEP = 500


def image_names(image: Mapping[str, Any]) -> Iterator[str]:
    """Yield where an image may lie below the image folder.

    Its ``file_name``; and, for LVIS v1 that has none, the path of ``coco_url`` and that path's last part.
    """
    if isinstance(image.get('file_name'), str) and image['file_name']:
        yield image['file_name']
    url = image.get('coco_url')
    if isinstance(url, str) and url:
        yield url.removeprefix(COCO_URL)
        yield url.rpartition('/')[2]


def image_paths(content: Mapping[str, Any], folder: Path | None) -> Iterator[Path]:
    """Yield every place where an image of a parsed file may lie; none without a folder."""
    if folder is not None:
        for image in section_of(content, 'images'):
            if isinstance(image, dict):
                yield from (folder / name for name in image_names(image))


def read_size(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return an image's (width, height) as readers see it, upright by its EXIF, and as it is stored.

    Raises:
        OSError: the file is no image, or damaged at its head.
    """
    try:
        with Image.open(path) as image:
            stored = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except (ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from None
    return (stored[1], stored[0]) if turned else stored, stored


def check_images(table: Table, folder: Path, progress: Progress | None = None) -> list[Finding]:
    """Check the files of all images; of each only the head is read.

    Args:
        table: the annotation file.
        folder: where the file names begin.
        progress: called with (images done, all images) now and then.
    """
    listings: dict[Path, set[str]] = {}
    faults: dict[str, list[int]] = {'missing': [], 'unreadable': [], 'size': [], 'turned': []}
    for row, image in enumerate(table.images):
        name = next((name for name in image_names(image) if _exists(folder / name, listings)), None)
        fault = 'missing' if name is None else _compare(folder / name, table.sizes[row].tolist())
        if fault:
            faults[fault].append(row)
        if progress and (row + 1) % _STEP == 0:
            progress(row + 1, len(table.images))
    if progress:
        progress(len(table.images), len(table.images))
    first = table.images[faults['missing'][0]] if faults['missing'] else {}
    messages = {
        'missing': f'the image is not in {folder} (first: {next(image_names(first), "without a name")})',
        'unreadable': 'the image file is no image, or damaged at its head',
        'size': 'the image file has another size than the annotation file says',
        'turned': 'the image has the stated size only as stored; its EXIF turns it, and readers follow that',
    }
    return [
        item
        for fault, rows in faults.items()
        for item in found(f'file-{fault}', messages[fault], table.image_ids, rows)
    ]


def _compare(path: Path, stated: list[float]) -> str | None:
    try:
        upright, stored = read_size(path)
    except OSError:
        return 'unreadable'
    if stated[0] != stated[0] or list(upright) == stated:  # NaN is a finding already
        return None
    return 'turned' if list(stored) == stated else 'size'


def _exists(path: Path, listings: dict[Path, set[str]]) -> bool:
    """Whether a file is there, by one listing a folder: much faster than asking for each."""
    if path.parent not in listings:
        try:
            with os.scandir(path.parent) as entries:
                listings[path.parent] = {entry.name for entry in entries}
        except OSError:
            listings[path.parent] = set()
    return path.name in listings[path.parent]
