"""An image or a folder of images, one after another."""

from pathlib import Path

from atss_ext.cli.open_ended.counter import Counter
from atss_ext.cli.open_ended.job import Job, attempt, export
from atss_ext.visualization.open_ended import draw_open_ended
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.images import list_images, read_image
from atss_ext.vlsam.store import ResultStore


def run_images(job: Job, store: ResultStore) -> int:
    """An image or a folder of images."""
    root = job.source if job.source.is_dir() else job.source.parent
    paths = list_images(job.source, recursive=job.recursive)
    names = [path.relative_to(root).as_posix() for path in paths]
    counter = Counter(len(names))
    try:
        for name, path in zip(names, paths, strict=True):
            kept = name in store
            found = attempt(job, store, name, path, counter)
            picture = job.out / 'pictures' / f'{name}.png'
            if found is not None and job.pictures and not (kept and picture.exists()):
                draw(name, path, found, picture)
    finally:  # also of a run that is interrupted
        export(job, store, names)
    counter.finish(job.out)
    return counter.failed


def draw(name: str, path: Path, found: Detections, picture: Path) -> None:
    """Draw what was found in an image."""
    page = draw_open_ended(
        read_image(path).pixels,
        found.boxes,
        found.names,
        found.scores,
        found.mask,
        size=found.size,
        title=name,
        maps=found.maps,
    )
    page.save(picture)
