"""A training set of pseudo-labels on disk: ``train.json``, ``val.json`` and ``summary.json`` in a folder."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from atss_ext.datasets.checks import DataError
from atss_ext.pseudo_labels.building import LABELS, PseudoLabels
from atss_ext.vlsam.atomic import replacing

FILES = ('train.json', 'val.json', 'summary.json')
"""What a set consists of; the last says that the others are whole."""

_SUMMARY = FILES[-1]
_UNFINISHED = 'unfinished'


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder in which a set would take the place of files of another origin.

    Ours is what lies beside a summary of ours and says itself that its labels are VL-SAM's: annotations made
    by hand have the same names (``docs/own_data.md``), and may have been put into a folder of ours.

    Raises:
        DataError: a file is none of ours, or cannot be read.
    """
    folder = Path(folder)
    there = [folder / name for name in FILES if os.path.lexists(folder / name)]
    whole = _is_summary(_content(folder / _SUMMARY))
    for path in there:
        if not (whole if path.name == _SUMMARY else whole and _is_part(_content(path))):
            raise DataError(
                f'{path} was not written by tools/pseudo_label.py and would be lost; choose another --out'
            )


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return None


def _is_summary(content: Any) -> bool:
    return isinstance(content, dict) and (
        _UNFINISHED in content or {'image_folder', 'classes'} <= set(content)
    )


def _is_part(content: Any) -> bool:
    info = content.get('info') if isinstance(content, dict) else None
    return isinstance(info, dict) and info.get('labels') == LABELS


def write_pseudo_labels(
    labels: PseudoLabels, folder: str | os.PathLike[str], images: str | os.PathLike[str]
) -> Path:
    """Write a training set; one that was there stays until all of the new one is written.

    Args:
        labels: the set.
        folder: made if absent; a set that is there is replaced, also one that was not written to its end.
        images: the folder its file names begin in.

    Returns:
        the folder.

    Raises:
        DataError: files of another origin would be lost (:func:`check_folder`).
        VlsamError: it cannot be written to.
    """
    folder = Path(folder)
    check_folder(folder)
    # The last file to be opened takes its place first, so that the summary, which says that the others are
    # whole, comes last.
    contents = {
        _SUMMARY: {'image_folder': Path(images).resolve().as_posix(), **labels.summary},
        **{f'{name}.json': content for name, content in labels.parts.items()},
    }
    with contextlib.ExitStack() as files:
        for name, content in contents.items():
            _dump(content, files.enter_context(replacing(folder / name)))
        # Whoever is interrupted from here on leaves a mixture: this says so, and that it may be replaced.
        with replacing(folder / _SUMMARY) as file:
            _dump({_UNFINISHED: True}, file)
        (folder / 'val.json').unlink(missing_ok=True)
    return folder


def _dump(content: Mapping[str, Any], file: IO[str]) -> None:
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
        DataError: the summary is damaged, or the set was not written to its end.
    """
    path = Path(folder) / _SUMMARY
    if not path.is_file():
        return tuple(default), f'{Path(folder).as_posix()}/images/'
    content = _content(path)
    if isinstance(content, dict) and _UNFINISHED in content:
        raise DataError(f'the set in {folder} was not written to its end; run tools/pseudo_label.py again')
    try:
        return tuple(map(str, content['classes'])), f'{content["image_folder"]}/'
    except (LookupError, TypeError):
        raise DataError(
            f'{path} is damaged; remove {", ".join(FILES)}, and make the set again with tools/pseudo_label.py'
        ) from None
