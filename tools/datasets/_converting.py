"""What the commands of this folder share: progress, names, sizes of images, whole files or none."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from atss_ext.cli.targets import writing
from atss_ext.datasets.annotation_checks import check_annotations
from atss_ext.datasets.annotation_checks.images import read_size
from atss_ext.errors import UserError

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
NO_LISTS = ('.yaml', '.yml', '.json', '.xml')


def progress(what: str) -> Callable[[int, int], None]:
    """A line on stderr that says how far it is; on no terminal only the last one."""

    def say(done: int, total: int) -> None:
        if sys.stderr.isatty() or done >= total:
            end = '\r' if done < total else '\n'
            print(f'{what}: {done}/{total}', end=end, file=sys.stderr, flush=True)

    return say


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts '9.jpg' before '10.jpg'."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', name) if part]


def list_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files of a folder and below with one of the suffixes, in natural order.

    Raises:
        UserError: the folder does not exist, or a name in it is no UTF-8, which JSON cannot hold.
    """
    if not folder.is_dir():
        raise UserError(f'folder {folder} does not exist; correct the path')
    endings = tuple(suffixes)
    found = [path for path in folder.rglob('*') if path.suffix.lower() in endings and path.is_file()]
    for path in found:
        try:
            str(path).encode('utf-8')
        except UnicodeEncodeError:
            raise UserError(f'the name of {str(path)!a} is no UTF-8; rename the file') from None
    return sorted(found, key=lambda path: natural(path.relative_to(folder).as_posix()))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; editors of Windows may have put a byte order mark before the first.

    Raises:
        UserError: it is no UTF-8 text.
    """
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError:
        raise UserError(f'{path} is no text in UTF-8; save it as UTF-8, correct or remove it') from None


def names_option(text: str) -> list[str]:
    """Class names as given: with commas between, or a file with one a line.

    Raises:
        UserError: it is a file of another kind, or looks like one that does not exist.
    """
    path = Path(text)
    if path.suffix.lower() in NO_LISTS:
        raise UserError(f'--names {text} is no list of names, one a line; write them with commas between')
    if path.suffix.lower() in ('.txt', '.names') and not names_file(text):
        raise UserError(f'--names {text}: this file does not exist; correct the path')
    lines = read_lines(path) if names_file(text) else text.split(',')
    return [line.strip() for line in lines if line.strip()]


def names_file(text: str | None) -> Path | None:
    """The file that --names gives; None where it gives the names, which may be longer than a path can be."""
    return Path(text) if text and os.path.isfile(text) else None


def categories(names: list[str], where: str) -> list[dict[str, Any]]:
    """COCO categories of class names, ids from 1 in their order.

    Raises:
        UserError: there is no name, or one stands twice.
    """
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise UserError(f"class '{twice}' stands twice in {where}; give each class its own name")
    if not names:
        raise UserError(f'{where} names no class; name them with --names a,b,c')
    return [{'id': number, 'name': name} for number, name in enumerate(names, start=1)]


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as readers see it, upright by its EXIF.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read_size(path)[0]
    except OSError as error:
        reason = error.strerror or 'it is no image, or damaged'
        raise UserError(f'image {path} cannot be read ({reason}); replace or remove it') from None


def note_findings(content: Mapping[str, Any]) -> None:
    """Say what the checker finds in a converted file."""
    for finding in check_annotations(content).findings:
        print(f'{finding.severity}: {finding.message} ({finding.count} times)', file=sys.stderr)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that is whole or not there, the same bytes for the same content.

    Raises:
        UserError: it cannot be written.
    """
    with writing(path) as file:
        json.dump(content, file, ensure_ascii=False, separators=(',', ':'))
        file.write('\n')
