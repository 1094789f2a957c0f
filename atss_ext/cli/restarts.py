"""Processes that torchrun starts again, after one of them died, go on with their own run and no other."""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import distributed as dist

from atss_ext.cli.errors import rank
from atss_ext.vlsam.atomic import replacing

_MARKER = '.launch.json'


def failures_code() -> int:
    """The exit code of a run that came to its end, but in which something failed.

    It is 1, as after a bug; tools/launch.py, which starts again what died of a bug, asks for one of its own
    and hands on 1.
    """
    return int(os.environ.get('ATSS_FINISHED_CODE', '1'))


@dataclass(frozen=True)
class Start:
    """One start of the processes of a run.

    A start belongs to the run of an earlier one if both have the name that torchrun was given, and a launcher
    in common: machines come and go, but a name may be taken for another run by all of them.

    Attributes:
        run: the name.
        launchers: one word of every command that launched processes of this start, unless torchrun itself
            did, which is told apart from others by the name alone.
    """

    run: str
    launchers: Sequence[str]

    def recall(self, marker: Path) -> dict[str, Any] | None:
        """What an earlier start of this run noted; None where the note is another run's, or is not there."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            content = json.loads(marker.read_bytes())
            if isinstance(content, dict) and content.get('run') == self.run:
                return content if set(self.launchers) & set(content.get('launchers', ())) else None
        return None

    def note(self, marker: Path, content: dict[str, Any]) -> None:
        """Note something for later starts of this run."""
        launchers = sorted({*self.launchers, *content.get('launchers', ())})
        with replacing(marker) as file:
            json.dump({**content, 'run': self.run, 'launchers': launchers}, file)


def may_start_again() -> bool:
    """Whether a launcher is there that starts processes again."""
    return os.environ.get('TORCHELASTIC_RUN_ID', 'none') != 'none'


def this_start() -> Start | None:
    """This start, as all its processes see it; None without a launcher that starts processes again.

    All processes call it, joined already if there are several.
    """
    if not may_start_again():
        return None
    launchers = [os.environ.get('ATSS_LAUNCHER', 'torchrun')]
    if dist.is_initialized():
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, launchers[0])
        launchers = gathered
    return Start(os.environ['TORCHELASTIC_RUN_ID'], launchers)


def continues(work_dir: str | os.PathLike[str]) -> bool:
    """Whether this run has written a checkpoint before it was started again.

    The first start notes which checkpoint was the last one in the folder, so that one of an earlier run is
    never taken for its own. The first process decides for all, which have joined.

    Args:
        work_dir: of the run; all its machines share it.
    """
    start = this_start()
    if start is None:
        return False
    answer = [rank() == 0 and _continues(start, Path(work_dir))]
    if dist.is_initialized():
        dist.broadcast_object_list(answer)
    return answer[0]


def _continues(start: Start, folder: Path) -> bool:
    latest, marker = _latest(folder), folder / _MARKER
    known = start.recall(marker)
    start.note(marker, {'latest': latest} if known is None else known)
    return known is not None and latest is not None and latest != known.get('latest')


def _latest(folder: Path) -> list[Any] | None:
    """What tells the last checkpoint of a folder from any other: its name and when it was noted.

    None where it is gone, too: with ``max_keep_ckpts=1`` mmengine removes it before it writes the next.
    """
    note = folder / 'last_checkpoint'
    with contextlib.suppress(OSError):
        name = note.read_text(encoding='utf-8')
        there = '://' in name or Path(name).exists()
        return [name, note.stat().st_mtime_ns] if there else None
    return None
