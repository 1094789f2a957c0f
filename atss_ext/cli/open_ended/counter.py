"""How far a run of ``tools/vlsam.py`` is, for people."""

from pathlib import Path

from atss_ext.visualization.progress import duration
from atss_ext.vlsam.detections import Detections


class Counter:
    """Says how far a run is, a line an image on standard output.

    Args:
        total: number of images.
        title: what every line begins with.
    """

    def __init__(self, total: int, title: str = '') -> None:
        self.title = title
        self.total, self.seen, self.failed, self.kept, self.objects = total, 0, 0, 0, 0
        self._seconds: list[float] = []

    def done(self, name: str, found: Detections, seconds: float) -> None:
        """An image was looked at."""
        self._seconds.append(seconds)
        self.objects += len(found)
        names = ', '.join(dict.fromkeys(found.names)) or 'nothing'
        names = names if len(names) <= 60 else names[:57] + '...'
        self._say(name, f'{len(found)} objects ({names}) in {seconds:.1f} s')

    def known(self, name: str) -> None:
        """An earlier run had it."""
        self.kept += 1
        self.seen += 1

    def fault(self, name: str, reason: str) -> None:
        """It failed."""
        self.failed += 1
        self._say(name, f'FAILED: {reason}')

    def _say(self, name: str, words: str) -> None:
        self.seen += 1
        left = self.total - self.seen
        rest = ''
        if left and self._seconds:
            rest = f'; {duration(left * sum(self._seconds) / len(self._seconds))} left'
        self._line(f'[{self.seen}/{self.total}] {name}: {words}{rest}')

    def finish(self, out: Path) -> None:
        """The last line."""
        parts = [f'{len(self._seconds)} images, {self.objects} objects']
        if self.kept:
            parts.append(f'{self.kept} kept from an earlier run')
        if self.failed:
            parts.append(f'{self.failed} FAILED (the same command tries them again)')
        self._line(f'{"; ".join(parts)}: {out}')

    def _line(self, words: str) -> None:
        # In one piece: torchrun's processes do not buffer, and print writes the end of a line by itself; the
        # line of another process may come before it.
        print(f'{self.title}{words}\n', end='', flush=True)
