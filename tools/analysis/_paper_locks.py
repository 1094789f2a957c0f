"""One process at a time trains a run: a lock that ends with those that hold it, however they end."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
    from multiprocessing.reduction import DupFd
except ImportError:  # no such locks on Windows
    fcntl = None  # type: ignore[assignment]


class Held:
    """An open lock file, which a process that is started with it holds as well."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return (_inherited, (DupFd(self.descriptor),)) if fcntl else (Held, (self.descriptor,))


def _inherited(duplicate: Any) -> Held:
    return Held(duplicate.detach())


@contextlib.contextmanager
def hold(path: Path, wait: bool = True) -> Iterator[Held]:
    """Hold the lock of a file, which is made and stays.

    Args:
        path: of the file.
        wait: while another process holds it.

    Raises:
        BlockingIOError: another process holds it, and is not waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # For people: that the lock is held the system knows, also of a process that was killed.
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield Held(descriptor)
    finally:
        os.close(descriptor)


def holder(path: Path) -> str | None:
    """The id of the process that holds the lock of a file; None where nobody does, or there is no file."""
    if not fcntl or not path.is_file():
        return None
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read() or 'unknown'
    return None
