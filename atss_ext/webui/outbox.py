"""Files that the page hands out and takes in, in a folder that ends with the server."""

import contextlib
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

_ENTRY = 4096  # that even an empty file takes on disk


class Outbox:
    """Makes places for files; of those it made, only the latest stay.

    Args:
        keep: how many. Gradio copies a file as soon as it is handed out.
    """

    def __init__(self, keep: int = 32) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix='atss_ext_webui_')
        self._keep = keep
        self._lock = threading.Lock()
        self._made: deque[Path] = deque()

    @property
    def folder(self) -> Path:
        """Where all of them lie."""
        return Path(self._folder.name)

    @property
    def gradio(self) -> Path:
        """Where gradio keeps what was sent, and its copies of what is handed out."""
        return self.folder / 'gradio'

    def now(self) -> int:
        """The time by the clock of the files, which lags behind that of the machine; nanoseconds."""
        clock = self.folder / 'clock'
        clock.touch()
        return clock.stat().st_mtime_ns

    def make_room(self, size: int, most: int, since: int) -> bool:
        """Delete the oldest files of gradio's folder until ``size`` more bytes make at most ``most``.

        Args:
            size: bytes that are to come.
            most: bytes that all files together may have.
            since: files written from then on stay (:meth:`now`).

        Returns:
            whether there is room; where there would be none, nothing is deleted.
        """
        with self._lock:
            files = sorted(self._sent())
            excess = size + sum(taken for _, _, taken in files) - most
            old = [(path, taken) for written, path, taken in files if written < since]
            if excess > sum(taken for _, taken in old):
                return False
            for path, taken in old:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # others are in it
                    path.parent.rmdir()
                excess -= taken
            return True

    def _sent(self) -> Iterator[tuple[int, Path, int]]:
        """When each file was written, its path, and what it takes."""
        for folder, _, names in os.walk(self.gradio):
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(FileNotFoundError):  # gradio renames what has come in whole
                    status = path.lstat()
                    yield status.st_mtime_ns, path, status.st_size + _ENTRY

    def place(self, name: str) -> Path:
        """A path of this file name in a folder of its own."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        self._made.append(folder)
        while len(self._made) > self._keep:
            shutil.rmtree(self._made.popleft(), ignore_errors=True)
        return folder / Path(name).name

    def close(self) -> None:
        """Delete everything."""
        self._folder.cleanup()
