"""Files a command will write, looked at before its work: what was computed would be lost."""

import os
from pathlib import Path

from atss_ext.cli.errors import UserError


def check_target(option: str, path: str | os.PathLike[str] | None, *read: str | os.PathLike[str]) -> None:
    """Refuse a file that cannot be written, or that would take the place of one that is read.

    Args:
        option: of the command line, for the message.
        path: the file; None is none.
        read: files of the same command that have to stay.

    Raises:
        UserError: it is a folder, is read, or lies where nothing can be written.
    """
    if path is None:
        return
    try:
        fault = _fault(Path(path), [Path(one) for one in read])
    except OSError as error:  # such as a name that is too long
        fault = f'cannot be written ({error.strerror}); choose another place'
    if fault:
        raise UserError(f'{option} {path} {fault}')


def _fault(path: Path, read: list[Path]) -> str | None:
    if path.is_dir():
        return 'is a folder; name a file'
    if path.exists() and any(one.exists() and path.samefile(one) for one in read):
        return 'is a file that is read; choose another name'
    place = next(one for one in path.absolute().parents if one.exists())
    if not place.is_dir():
        return f'cannot be written, because {place} is no folder; choose another place'
    if not os.access(path if path.exists() else place, os.W_OK):
        return 'cannot be written (no permission); choose another place'
    return None
