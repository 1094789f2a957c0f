"""A training set of pseudo-labels on disk: ``train.json``, ``val.json`` and ``summary.json`` in a folder."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from atss_ext.datasets.checks import DataError
from atss_ext.pseudo_labels.building import PseudoLabels
from atss_ext.vlsam.atomic import replacing

_SUMMARY = 'summary.json'


def write_pseudo_labels(
    labels: PseudoLabels, folder: str | os.PathLike[str], images: str | os.PathLike[str]
) -> Path:
    """Write a training set; one that was there stays until all of the new one is written.

    Args:
        labels: the set.
        folder: made if absent; a set that is there is replaced.
        images: the folder its file names begin in.

    Returns:
        the folder.

    Raises:
        VlsamError: it cannot be written to.
    """
    folder = Path(folder)
    # The last file to be opened takes its place first, so that the summary, which says that the others are
    # whole, comes last.
    contents = {
        _SUMMARY: {'image_folder': Path(images).resolve().as_posix(), **labels.summary},
        **{f'{name}.json': content for name, content in labels.parts.items()},
    }
    with contextlib.ExitStack() as files:
        for name, content in contents.items():
            _dump(content, files.enter_context(replacing(folder / name)))
        for name in (_SUMMARY, 'val.json'):
            (folder / name).unlink(missing_ok=True)
    return folder


def _dump(content: dict[str, Any], file: IO[str]) -> None:
    # ASCII, because pycocotools opens files in whatever encoding the system has.
    json.dump(content, file, separators=(',', ':'), allow_nan=False)
    file.write('\n')
    file.flush()  # a full disk shows before anything is replaced


def dataset_settings(
    folder: str | os.PathLike[str], default: Sequence[str] = ()
) -> tuple[tuple[str, ...], str]:
    """What a config needs to know of a set that was written: its classes, and where its images are.

    Args:
        folder: of :func:`write_pseudo_labels`.
        default: the classes where nothing is there (yet): the config can be read and looked at all the same,
            and training says which file is missing.

    Returns:
        the classes in the order of the file, and the folder of the images, which ends with a slash.

    Raises:
        DataError: the summary is damaged.
    """
    path = Path(folder) / _SUMMARY
    if not path.is_file():
        return tuple(default), f'{Path(folder).as_posix()}/images/'
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return tuple(map(str, content['classes'])), f'{content["image_folder"]}/'
    except (ValueError, LookupError, TypeError):
        raise DataError(f'{path} is damaged; make it again with tools/pseudo_label.py') from None
