"""Files for others: whole, or not there at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atss_ext.errors import UserError, first_line


@contextmanager
def finished(path: Path) -> Iterator[Path]:
    """A place for a file that goes to ``path`` when the block has ended well, and otherwise is gone.

    Args:
        path: of a command's ``--out``; its folder is made if absent.

    Raises:
        UserError: the system refuses, as where a disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix='.unfinished-') as folder:
            unfinished = Path(folder) / path.name
            yield unfinished
            os.replace(unfinished, path)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(f'--out {path} cannot be written ({reason}); choose another place') from error
