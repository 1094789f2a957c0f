"""Writes the shapes world as a COCO dataset: all of it or nothing.

A split is one folder: ``images/000000.jpg ...``, ``annotations.json`` and, as proof that it is whole,
``manifest.json``. It is built beside its place and moved there in one step, so that a killed run
leaves nothing that looks like a dataset.

Images are JPEG: a photograph of 320 x 256 pixels with sensor noise takes 25 KB instead of the 150 KB
of a PNG, decodes faster, and carries the artefacts that real datasets have. The encoder is as
deterministic as PNG's.
"""

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

from atss_ext.datasets.shapes import Scene, ShapesSpec, check_seed, draw_scene

# Counts the changes that alter what a seed draws; a dataset of another version is made anew.
GENERATOR_VERSION = 1
_QUALITY = 92
_CHUNK = 16

Progress = Callable[[int, int], None]


def write_coco(
    root: str | os.PathLike[str],
    split: str,
    count: int,
    spec: ShapesSpec,
    seed: int,
    workers: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write ``count`` scenes below ``root/split``, or find them written already.

    Files are byte-identical for the same arguments in one installation of NumPy and OpenCV, whatever
    ``workers``; image i also does not depend on ``count``. Splits of one seed share no scene.

    Args:
        root: folder of the dataset; made if absent.
        split: name of the part, such as 'train'.
        count: number of images.
        spec: the world.
        seed: of the world's chance.
        workers: processes that draw; 0 draws in this one.
        progress: called with (images done, count) now and then; never called when the split exists.

    Returns:
        the folder of the split. One of another spec, seed or count is replaced.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: the folder exists and is no shapes dataset.
    """
    if not isinstance(count, int) or count < 1:
        raise ValueError(f'count must be an integer of at least 1, but is {count!r}.')
    if not isinstance(workers, int) or workers < 0:
        raise ValueError(f'workers must be an integer of at least 0, but is {workers!r}.')
    if not split or split.startswith('.') or Path(split).name != split:
        raise ValueError(f'split must be a plain folder name such as "train", but is {split!r}.')
    check_seed(seed)
    root, wanted = Path(root), _manifest(split, count, spec, seed)
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f'.{split}.lock'):
        target, building = root / split, root / f'.{split}.building'
        if _is_whole(target, wanted):
            return target
        if target.exists() and not (target / 'manifest.json').is_file():
            raise FileExistsError(
                f'{target} exists and is no shapes dataset: choose another folder or remove it.'
            )
        _remove(building)
        _build(building, wanted, spec, workers, progress)
        _remove(target)
        os.replace(building, target)
    return target


def split_seed(seed: int, split: str) -> int:
    """The seed of one split: ``draw_scene(spec, split_seed(seed, split), i)`` is its image i."""
    return int.from_bytes(hashlib.sha256(f'{seed}/{split}'.encode()).digest()[:7], 'big')


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """A scene's objects as COCO annotations, masks as compressed run lengths of the visible pixels."""
    annotations = []
    for number, (mask, box) in enumerate(zip(scene.masks, scene.boxes.tolist(), strict=True)):
        encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotations.append(
            {
                'id': first_id + number,
                'image_id': image_id,
                'category_id': int(scene.category_ids[number]),
                'bbox': [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                'area': int(mask.sum()),
                'iscrowd': 0,
                'segmentation': {'size': list(mask.shape), 'counts': encoded['counts'].decode('ascii')},
            }
        )
    return annotations


def _manifest(split: str, count: int, spec: ShapesSpec, seed: int) -> dict[str, Any]:
    made_by = {'generator': 'atss_ext shapes', 'version': GENERATOR_VERSION}
    settings = {'split': split, 'count': count, 'seed': seed, 'spec': dataclasses.asdict(spec)}
    return json.loads(json.dumps({**made_by, **settings}))  # tuples become lists, as they will be read back


def _is_whole(target: Path, wanted: dict[str, Any]) -> bool:
    try:
        found = json.loads((target / 'manifest.json').read_text())
        images = sum(1 for name in os.listdir(target / 'images') if name.endswith('.jpg'))
    except (OSError, ValueError):
        return False
    return found == wanted and images == wanted['count'] and (target / 'annotations.json').is_file()


def _build(
    folder: Path, manifest: dict[str, Any], spec: ShapesSpec, workers: int, progress: Progress | None
) -> None:
    (folder / 'images').mkdir(parents=True)
    seed, count = split_seed(manifest['seed'], manifest['split']), manifest['count']
    tasks = [(folder, spec, seed, start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with _mapper(min(workers, len(tasks))) as run:
        for chunk in run(_write_chunk, tasks):
            for index, of_image in chunk:
                images.append(
                    {'id': index + 1, 'file_name': _file(index), 'width': spec.width, 'height': spec.height}
                )
                for annotation in of_image:
                    annotations.append({**annotation, 'id': len(annotations) + 1})
            if progress is not None:
                progress(len(images), count)
    names = enumerate(spec.category_names, start=1)
    categories = [{'id': number, 'name': name, 'supercategory': name.split()[-1]} for number, name in names]
    content = {'info': manifest, 'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'annotations.json').write_text(json.dumps(content, sort_keys=True, separators=(',', ':')))
    (folder / 'manifest.json').write_text(json.dumps(manifest, sort_keys=True, indent=1))


def _write_chunk(task: tuple[Path, ShapesSpec, int, int, int]) -> list[tuple[int, list[dict[str, Any]]]]:
    folder, spec, seed, start, stop = task
    written = []
    for index in range(start, stop):
        scene = draw_scene(spec, seed, index)
        done, data = cv2.imencode('.jpg', scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if not done:
            raise RuntimeError(f'OpenCV cannot write JPEG: image {index} of {folder} was not made.')
        (folder / 'images' / _file(index)).write_bytes(data.tobytes())
        written.append((index, coco_annotations(scene, image_id=index + 1, first_id=1)))
    return written


def _file(index: int) -> str:
    return f'{index:06d}.jpg'


@contextlib.contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Any]]:
    """``map`` over processes, in order."""
    if workers < 2:
        yield map
        return
    # fork starts in milliseconds; a spawned worker would import torch first.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    # Set here for the workers: asked in a forked one, OpenCV waits forever for threads that fork left behind.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with multiprocessing.get_context(method).Pool(workers) as pool:
            yield pool.imap
    finally:
        cv2.setNumThreads(threads)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Two processes that want the same split take turns; a killed one frees the lock."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    with open(path, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(folder: Path) -> None:
    if folder.exists():
        # The proof of wholeness goes first: a half-removed dataset must not look whole.
        (folder / 'manifest.json').unlink(missing_ok=True)
        shutil.rmtree(folder)
