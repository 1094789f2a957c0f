"""Scenes drawn once and kept as arrays, because drawing takes a fifth of the time of a training step."""

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.shapes import Scene, ShapesSpec
from atss_ext.datasets.shapes_coco import GENERATOR_VERSION
from atss_ext.vlsam.world.scenes import SEED, SPEC, scene_of

UNSURE = 255
# A patch belongs to an object from this share on, and to none below that one.
_OBJECT, _EMPTY = 0.5, 0.15


class Scenes(NamedTuple):
    """N scenes of at most M objects; objects that a scene lacks have category 0.

    Attributes:
        images: uint8 [N, H, W, 3].
        owners: uint8 [N, R, C], which object a patch belongs to, counted from 1; 0 none, 255 unsure.
        boxes: float32 xyxy [N, M, 4], pixels.
        categories: uint8 [N, M], from 1.
    """

    images: NDArray[np.uint8]
    owners: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    categories: NDArray[np.uint8]


def patch_owners(scene: Scene, patch: int) -> NDArray[np.uint8]:
    """Which object each ``patch`` x ``patch`` pixels of a scene belong to.

    Returns:
        uint8 [H / patch, W / patch], as in :class:`Scenes`; every object owns a patch at least, unless
        another has a greater share of it.
    """
    height, width = scene.image.shape[:2]
    rows, columns = height // patch, width // patch
    owners = np.zeros((rows, columns), np.uint8)
    if not len(scene.masks):
        return owners
    shares = scene.masks.reshape(-1, rows, patch, columns, patch).mean(axis=(2, 4))  # [M, R, C]
    best = shares.max(axis=0)
    peaks = shares >= shares.max(axis=(1, 2), keepdims=True)
    leaders = shares.argmax(axis=0)
    owners[best >= _EMPTY] = UNSURE
    sure = (best >= _OBJECT) | np.take_along_axis(peaks, leaders[None], axis=0)[0]
    owners[sure] = leaders[sure] + 1
    return owners


def cached_scenes(
    folder: Path,
    count: int,
    patch: int,
    workers: int = 0,
    split: str = 'train',
    spec: ShapesSpec = SPEC,
    progress: Callable[[int, int], None] | None = None,
) -> Scenes:
    """The first ``count`` scenes of a split, from ``folder`` or drawn into it.

    Args:
        folder: of the arrays; one with other scenes is replaced.
        count: scenes.
        patch: side of a patch, pixels.
        workers: processes that draw; 0 draws in this one.
        split: of the world.
        spec: of the world.
        progress: called with (scenes done, count) now and then.
    """
    manifest = {
        'generator': GENERATOR_VERSION,
        'seed': SEED,
        'split': split,
        'count': count,
        'patch': patch,
        'spec': {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(spec).items()},
    }
    known = folder / 'manifest.json'
    if not (known.is_file() and json.loads(known.read_text(encoding='utf-8')) == manifest):
        building = folder.with_name(folder.name + '.building')
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        scenes = draw_scenes(count, patch, workers, split, spec, progress)
        for name, values in scenes._asdict().items():
            np.save(building / f'{name}.npy', values)
        (building / 'manifest.json').write_text(json.dumps(manifest, indent=1), encoding='utf-8')
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
    return Scenes(*(np.load(folder / f'{name}.npy', mmap_mode='r') for name in Scenes._fields))


def draw_scenes(
    count: int,
    patch: int,
    workers: int = 0,
    split: str = 'train',
    spec: ShapesSpec = SPEC,
    progress: Callable[[int, int], None] | None = None,
) -> Scenes:
    """Draw the first ``count`` scenes of a split; the same whatever ``workers``."""
    most = spec.max_objects
    scenes = Scenes(
        np.zeros((count, spec.height, spec.width, 3), np.uint8),
        np.zeros((count, spec.height // patch, spec.width // patch), np.uint8),
        np.zeros((count, most, 4), np.float32),
        np.zeros((count, most), np.uint8),
    )
    jobs = [(split, index, spec, patch) for index in range(count)]
    with multiprocessing.get_context('spawn').Pool(workers) if workers else _NoPool() as pool:
        for index, (scene, owners) in enumerate(pool.imap(_draw, jobs, chunksize=64)):
            number = len(scene.boxes)
            scenes.images[index], scenes.owners[index] = scene.image, owners
            scenes.boxes[index, :number], scenes.categories[index, :number] = scene.boxes, scene.category_ids
            if progress and (index % 500 == 499 or index == count - 1):
                progress(index + 1, count)
    return scenes


def _draw(job: tuple[str, int, ShapesSpec, int]) -> tuple[Scene, NDArray[np.uint8]]:
    split, index, spec, patch = job
    scene = scene_of(split, index, spec)
    owners = patch_owners(scene, patch)
    return scene._replace(masks=scene.masks[:, :1, :1]), owners  # masks are large to send and not kept


class _NoPool:
    def __enter__(self) -> '_NoPool':
        return self

    def __exit__(self, *error: object) -> None:
        pass

    imap = staticmethod(lambda function, jobs, chunksize: map(function, jobs))
