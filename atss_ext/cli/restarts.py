"""Processes that torchrun starts again, after one of them died, go on from the run's own last checkpoint."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from atss_ext.cli.errors import rank

_MARKER = '.launch.json'


def failures_code() -> int:
    """The exit code of a run that came to its end, but in which something failed.

    It is 1, as after a bug; tools/launch.py, which starts again what died of a bug, asks for one of its own
    and hands on 1.
    """
    return int(os.environ.get('ATSS_FINISHED_CODE', '1'))


def continues(work_dir: str | os.PathLike[str]) -> bool:
    """Whether this run has written a checkpoint before it was started again.

    The first start notes which checkpoint was the last one in the folder, so that one of an earlier run is
    never taken for its own. All processes of a start get the same answer.

    Args:
        work_dir: of the run; all its machines share it.
    """
    run = os.environ.get('TORCHELASTIC_RUN_ID', 'none')
    if run == 'none':  # no launcher, or one that starts nothing again
        return False
    folder = Path(work_dir)
    latest = _latest(folder)
    known = _read(folder / _MARKER)
    if known is not None and known.get('run') == run:
        return latest is not None and latest != known.get('latest')
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f'{_MARKER}.partial'
        partial.write_text(json.dumps({'run': run, 'latest': latest}), encoding='utf-8')
        os.replace(partial, folder / _MARKER)
    return False


def _latest(folder: Path) -> list[Any] | None:
    """What tells the last checkpoint of a folder from any other: its name and when it was noted."""
    note = folder / 'last_checkpoint'
    with contextlib.suppress(OSError):
        return [note.read_text(encoding='utf-8'), note.stat().st_mtime_ns]
    return None


def _read(marker: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(marker.read_bytes())
        return content if isinstance(content, dict) else None
    return None
