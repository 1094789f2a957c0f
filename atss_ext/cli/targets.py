"""Files a command writes: looked at before its work, which would be lost; then whole or not there."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from atss_ext.errors import UserError
from atss_ext.vlsam.atomic import replacing

Name = str | os.PathLike[str]


def check_target(option: str, path: Name | None, *read: Name) -> None:
    """Refuse a file that cannot be written, or that would take the place of one that is read.

    Args:
        option: of the command line, for the message.
        path: the file; None is none.
        read: files of the same command that have to stay.

    Raises:
        UserError: it is a folder or a device, is read, or lies where nothing can be written.
    """
    check_targets({option: path}, read)


def check_targets(targets: Mapping[str, Name | None], read: Iterable[Name] = ()) -> None:
    """Refuse files of one command as :func:`check_target` does, and two that are one.

    Args:
        targets: option -> file that is written, None is none.
        read: files that have to stay; looked at only where a target exists.

    Raises:
        UserError: at the first that cannot be.
    """
    there = any(path is not None and os.path.exists(path) for path in targets.values())
    stay = list(read) if there else []
    places: dict[Path, str] = {}
    for option, path in targets.items():
        if path is None:
            continue
        try:
            fault = _fault(Path(path), stay)
            other = places.setdefault(Path(path).resolve(), option)
        except (OSError, RuntimeError) as error:  # such as a name that is too long, a link to itself
            reason = error.strerror if isinstance(error, OSError) else 'its links lead nowhere'
            raise UserError(f'{option} {path} cannot be written ({reason}); choose another place') from None
        if not fault and other != option:
            fault = f'is written by {other} as well; choose another name'
        if fault:
            raise UserError(f'{option} {path} {fault}')


@contextlib.contextmanager
def writing(path: Name) -> Iterator[IO[Any]]:
    """A new text file that takes the place of ``path`` when the block has ended well, and otherwise is gone.

    Args:
        path: its folder is made if absent; of a link the file it leads to is written.

    Raises:
        UserError: the system refuses, as where a disk is full.
    """
    try:
        with replacing(Path(path).resolve()) as file:
            yield file
    except OSError as error:
        raise UserError(f'{path} cannot be written ({error.strerror}); choose another place') from error


def _fault(path: Path, read: list[Name]) -> str | None:
    if path.is_dir():
        return 'is a folder; name a file'
    if path.exists():
        state = path.stat()
        if not path.is_file():
            return 'is no regular file; choose another name'
        if any(os.path.exists(one) and os.path.samestat(os.stat(one), state) for one in read):
            return 'is a file that is read; choose another name'
    place = next(one for one in path.resolve().parents if one.exists())
    if not place.is_dir():
        return f'cannot be written, because {place} is no folder; choose another place'
    if not all(os.access(one, os.W_OK) for one in (path, place) if one.exists()):
        return 'cannot be written (no permission); choose another place'
    return None
