"""An image or a folder of images, one after another."""

import hashlib
from pathlib import Path

from atss_ext.cli.errors import note
from atss_ext.cli.open_ended.counter import Counter
from atss_ext.cli.open_ended.job import Job, attempt, export, exporting, key_of
from atss_ext.cli.open_ended.processes import Processes
from atss_ext.errors import first_line
from atss_ext.visualization.open_ended import draw_open_ended
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.export import check_label_names
from atss_ext.vlsam.images import list_images, read_image
from atss_ext.vlsam.store import ResultStore

# File systems take 255 bytes; a suffix comes behind.
_LONGEST_NAME = 200


def run_images(job: Job, store: ResultStore, processes: Processes) -> int:
    """An image or a folder of images; the first process exports what all have found.

    Returns:
        how many failed, in all processes.
    """
    root = job.source if job.source.is_dir() else job.source.parent
    paths = list_images(job.source, recursive=job.recursive)
    names = [path.relative_to(root).as_posix() for path in paths]
    if any(kind.startswith('yolo') for kind in job.formats):
        check_label_names(names)
    keys = {name: key_of(path, name) for name, path in zip(names, paths, strict=True)}
    processes.check_same(list(keys.values()))
    share = processes.share(list(zip(names, paths, strict=True)))
    counter = Counter(len(share), processes.title)
    with exporting(lambda: export(job, store, keys) if processes.first else None):
        for name, path in share:
            kept = keys[name] in store
            found = attempt(job, store, name, keys[name], path, counter)
            picture = picture_of(job.out, name)
            if found is not None and job.pictures and not (kept and picture.exists()):
                try_to_draw(name, path, found, picture)
        counter.finish(job.out)
        failed = processes.total(counter.failed)  # here the first waits until all have come to their end
    processes.wait()  # whoever ends with a failure has the launcher end all others, also amid the export
    return failed


def picture_of(out: Path, name: str) -> Path:
    """Where an image's picture goes."""
    place = out / 'pictures' / f'{name}.png'
    if len(place.name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        place = place.with_name(f'{place.name[:40]}-{digest}.png')
    return place


def try_to_draw(name: str, path: Path, found: Detections, picture: Path) -> None:
    """Draw what was found in an image; a picture that cannot be made ends nothing."""
    try:
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
    except Exception as error:
        note(f'{name}: no picture could be drawn ({type(error).__name__}: {first_line(error)})')
