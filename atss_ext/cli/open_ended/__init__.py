"""What ``tools/vlsam.py`` does: image after image, each result kept at once, pictures and exports behind."""

from atss_ext.cli.open_ended.images import run_images
from atss_ext.cli.open_ended.job import FORMATS, Job
from atss_ext.cli.open_ended.video import run_video
from atss_ext.vlsam.images import is_video
from atss_ext.vlsam.store import ResultStore

__all__ = ['FORMATS', 'Job', 'run_job']


def run_job(job: Job) -> int:
    """Do it; returns how many images failed."""
    store = ResultStore(job.out / 'results', job.fingerprint, restart=job.restart)
    return (run_video if is_video(job.source) else run_images)(job, store)
