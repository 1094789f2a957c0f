"""What ``tools/vlsam.py`` does: image after image, each result kept at once, pictures and exports behind."""

from pathlib import Path

from atss_ext.cli.errors import UserError
from atss_ext.cli.open_ended.images import run_images
from atss_ext.cli.open_ended.job import FORMATS, Job
from atss_ext.cli.open_ended.video import run_video
from atss_ext.vlsam.images import is_video
from atss_ext.vlsam.store import ResultStore

__all__ = ['FORMATS', 'Job', 'run_job']

_INPUT = 'input.txt'


def run_job(job: Job) -> int:
    """Do it; returns how many images failed."""
    fingerprint = job.fingerprint  # settings that make no sense are refused before anything is written
    _check_input(job.source.resolve(), job.out, job.restart)
    store = ResultStore(job.out / 'results', fingerprint, restart=job.restart)
    (job.out / _INPUT).write_text(str(job.source.resolve()), encoding='utf-8')
    video = job.source.is_file() and is_video(job.source)
    return (run_video if video else run_images)(job, store)


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
