"""What ``tools/vlsam.py`` does: image after image, each result kept at once, pictures and exports behind."""

from pathlib import Path

from atss_ext.cli.open_ended.images import run_images
from atss_ext.cli.open_ended.job import FORMATS, Job
from atss_ext.cli.open_ended.processes import Processes, join
from atss_ext.cli.open_ended.video import run_video
from atss_ext.cli.restarts import this_start
from atss_ext.errors import UserError
from atss_ext.vlsam.atomic import replacing
from atss_ext.vlsam.images import is_video
from atss_ext.vlsam.store import ResultStore

__all__ = ['FORMATS', 'Job', 'Processes', 'join', 'run_job']

_INPUT = 'input.txt'
# Which run has forgotten earlier results: what a launcher starts again, after a death or because a machine
# has joined, forgets none of its own.
_RESTARTED = '.restarted'


def run_job(job: Job, processes: Processes | None = None) -> int:
    """Do it, alone or as one of several processes; returns how many images failed.

    Raises:
        UserError: a video in several processes, or a folder ``out`` that holds results of something else.
    """
    processes = processes or Processes()
    fingerprint = job.fingerprint  # settings that make no sense are refused before anything is written
    video = job.source.is_file() and is_video(job.source)
    if video and processes.count > 1:
        raise UserError(
            f'{job.source} is a video, whose objects keep their numbers from frame to frame; run '
            'tools/vlsam.py on it, in one process'
        )
    start, marker = this_start(), job.out / _RESTARTED
    again = start.recall(marker) if start and processes.first else None
    restart = job.restart and processes.first and again is None
    with processes.one_by_one():
        _check_input(job.source.resolve(), job.out, restart)
        store = ResultStore(job.out / 'results', fingerprint, restart=restart)
        with replacing(job.out / _INPUT) as file:
            file.write(str(job.source.resolve()))
        if job.restart and processes.first and start:
            start.note(marker, again or {})
    return run_video(job, store) if video else run_images(job, store, processes)


def _check_input(source: Path, out: Path, restart: bool) -> None:
    """Two folders of one name would write over each other's exports.

    Raises:
        UserError: the results in ``out`` are of another input.
    """
    earlier = out / _INPUT
    if restart or not earlier.is_file():
        return
    known = earlier.read_text(encoding='utf-8')
    if known != str(source):
        raise UserError(
            f'{out} holds what was found in {known}; name another folder with --out, or forget it with '
            '--restart'
        )
