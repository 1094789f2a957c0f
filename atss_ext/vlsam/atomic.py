"""Files that are whole or not there at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from atss_ext.vlsam.protocols import VlsamError

PARTIAL = '.partial'  # ends the hidden names of what is not whole yet


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = 'w') -> Iterator[IO[Any]]:
    """A new file that takes the place of ``path`` when the block has ended well, and otherwise is gone.

    Several processes may write the same file; the last one stays.

    Args:
        path: its folder is made if absent.
        mode: 'w' for text (UTF-8) or 'wb'.

    Raises:
        VlsamError: the folder cannot be written to.
    """
    path = Path(path)
    partial = partial_path(path.parent)
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    try:
        with open(partial, mode, encoding=None if 'b' in mode else 'utf-8') as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def partial_path(folder: Path) -> Path:
    """A name in a folder that no one else uses."""
    return folder / f'.{uuid.uuid4().hex}{PARTIAL}'


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn the system's refusal to make files into a sentence."""
    try:
        yield
    except OSError as error:
        raise VlsamError(f'{path} cannot be written ({error.strerror}); choose another folder') from error
