"""A training set of pseudo-labels on disk: ``train.json``, ``val.json`` and ``summary.json`` in a folder."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atss_ext.datasets.checks import DataError
from atss_ext.pseudo_labels.building import PseudoLabels
from atss_ext.vlsam.atomic import replacing

_SUMMARY = 'summary.json'


def write_pseudo_labels(
    labels: PseudoLabels, folder: str | os.PathLike[str], images: str | os.PathLike[str]
) -> Path:
    """Write a training set; each file is whole or not there.

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
    (folder / _SUMMARY).unlink(missing_ok=True)  # the last to come: it says that the others are whole
    (folder / 'val.json').unlink(missing_ok=True)
    for name, content in labels.parts.items():
        _write(folder / f'{name}.json', content)
    _write(folder / _SUMMARY, {'image_folder': Path(images).resolve().as_posix(), **labels.summary})
    return folder


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as file:
        # ASCII, because pycocotools opens files in whatever encoding the system has.
        json.dump(content, file, separators=(',', ':'), allow_nan=False)
        file.write('\n')


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
