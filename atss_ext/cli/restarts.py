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
    never taken for its own, whatever id that had. All processes of a start get the same answer.

    Args:
        work_dir: of the run; all its machines share it.
    """
    run = _run_id()
    if run is None:
        return False
    folder = Path(work_dir)
    latest = _latest(folder)
    known = _read(folder / _MARKER)
    if known is not None and known.get('run') == run and not _is_over(known):
        return latest is not None and latest != known.get('latest')
    if rank() == 0:
        _write(folder, {'run': run, 'latest': latest})
    return False


def finish(work_dir: str | os.PathLike[str]) -> None:
    """Note that this run has come to its end: whoever takes its id again begins another one."""
    run = _run_id()
    if run is not None and rank() == 0:
        folder = Path(work_dir)
        known = _read(folder / _MARKER) or {}
        _write(folder, {'run': run, 'latest': known.get('latest'), 'finished': True})


def _run_id() -> str | None:
    """None without a launcher, or under one that starts nothing again."""
    run = os.environ.get('TORCHELASTIC_RUN_ID', 'none')
    return None if run == 'none' else run


def _is_over(known: dict[str, Any]) -> bool:
    # A process that died while it ended takes the finished ones along into another start of the same run.
    return bool(known.get('finished')) and os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') == '0'


def _write(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f'{_MARKER}.partial'
    partial.write_text(json.dumps(content), encoding='utf-8')
    os.replace(partial, folder / _MARKER)


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
