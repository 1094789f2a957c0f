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


class Scenes(NamedTuple):
    """N scenes of at most M objects.

    Attributes:
        images: uint8 [N, H, W, 3].
        owners: uint8 [N, H, W], the object that each pixel shows, counted from 1; 0 none.
        categories: uint8 [N, M], from 1; 0 for objects that a scene lacks.
    """

    images: NDArray[np.uint8]
    owners: NDArray[np.uint8]
    categories: NDArray[np.uint8]


def cached_scenes(
    folder: Path,
    count: int,
    workers: int = 0,
    split: str = 'train',
    spec: ShapesSpec = SPEC,
    progress: Callable[[int, int], None] | None = None,
) -> Scenes:
    """The first ``count`` scenes of a split, from ``folder`` or drawn into it.

    Args:
        folder: of the arrays; one with other scenes is replaced.
        count: scenes.
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
        'arrays': list(Scenes._fields),
        'spec': {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(spec).items()},
    }
    known = folder / 'manifest.json'
    if not (known.is_file() and json.loads(known.read_text(encoding='utf-8')) == manifest):
        building = folder.with_name(f'{folder.name}.building-{os.getpid()}')
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        scenes = draw_scenes(count, workers, split, spec, progress)
        for name, values in scenes._asdict().items():
            np.save(building / f'{name}.npy', values)
        (building / 'manifest.json').write_text(json.dumps(manifest, indent=1), encoding='utf-8')
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
    return Scenes(*(np.load(folder / f'{name}.npy', mmap_mode='r') for name in Scenes._fields))


def draw_scenes(
    count: int,
    workers: int = 0,
    split: str = 'train',
    spec: ShapesSpec = SPEC,
    progress: Callable[[int, int], None] | None = None,
) -> Scenes:
    """Draw the first ``count`` scenes of a split; the same whatever ``workers``."""
    scenes = Scenes(
        np.zeros((count, spec.height, spec.width, 3), np.uint8),
        np.zeros((count, spec.height, spec.width), np.uint8),
        np.zeros((count, spec.max_objects), np.uint8),
    )
    jobs = [(split, index, spec) for index in range(count)]
    with multiprocessing.get_context('spawn').Pool(workers) if workers else _NoPool() as pool:
        for index, (image, owners, categories) in enumerate(pool.imap(_draw, jobs, chunksize=64)):
            scenes.images[index], scenes.owners[index] = image, owners
            scenes.categories[index, : len(categories)] = categories
            if progress and (index % 500 == 499 or index == count - 1):
                progress(index + 1, count)
    return scenes


def owner_pixels(scene: Scene) -> NDArray[np.uint8]:
    """Which object each pixel of a scene shows: uint8 [H, W], from 1; 0 none. Masks never overlap."""
    numbers = np.arange(1, len(scene.masks) + 1, dtype=np.uint8)
    return (scene.masks * numbers[:, None, None]).sum(axis=0, dtype=np.uint8)


def _draw(job: tuple[str, int, ShapesSpec]) -> tuple[NDArray[np.uint8], ...]:
    split, index, spec = job
    scene = scene_of(split, index, spec)
    return scene.image, owner_pixels(scene), scene.category_ids.astype(np.uint8)


class _NoPool:
    def __enter__(self) -> '_NoPool':
        return self

    def __exit__(self, *error: object) -> None:
        pass

    imap = staticmethod(lambda function, jobs, chunksize: map(function, jobs))
