"""Files that the page hands out, in a folder that ends with the server."""

import shutil
import tempfile
from collections import deque
from pathlib import Path


class Outbox:
    """Makes places for files; of those it made, only the latest stay.

    Args:
        keep: how many. Gradio copies a file as soon as it is handed out.
    """

    def __init__(self, keep: int = 32) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix='atss_ext_webui_')
        self._keep = keep
        self._made: deque[Path] = deque()

    @property
    def folder(self) -> Path:
        """Where all of them lie."""
        return Path(self._folder.name)

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
