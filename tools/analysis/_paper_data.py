"""The data that the small trainings of the paper's tables learn from."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atss_ext.datasets import ShapesSpec, write_coco
from atss_ext.datasets.checks import read_coco
from atss_ext.errors import UserError

# Where a split's annotations and images may lie below a data root.
LAYOUTS = (
    ('{split}/annotations.json', '{split}/images'),
    ('annotations/instances_{split}2017.json', '{split}2017'),
    ('annotations/instances_{split}.json', '{split}'),
)


@dataclass(frozen=True)
class Data:
    """Two splits.

    Attributes:
        splits: annotation file and image folder of ``train`` and ``val``.
        classes: names, in the order of the file.
        digest: of both annotation files.
        words: what it is, for people.
    """

    splits: dict[str, tuple[str, str]]
    classes: tuple[str, ...]
    digest: str
    words: str


def small_world(size: int) -> ShapesSpec:
    """The shapes world in pictures of size x 3/4 size: up to five objects, little clutter."""
    return ShapesSpec(
        width=size,
        height=size * 3 // 4,
        max_objects=5,
        min_size=max(4, size // 12),
        max_size=size * 5 // 8,
        clutter=2,
        realism=0.5,
    )


def shapes_data(
    root: Path, size: int, train_images: int, val_images: int, progress: Callable[[int, int], None]
) -> Data:
    """Draw the small world, or find it drawn."""
    for split, count in (('train', train_images), ('val', val_images)):
        write_coco(root, split, count, small_world(size), 0, min(8, os.cpu_count() or 1), progress)
    return find_data(root, f'the shapes world ({train_images} training, {val_images} validation images)')


def find_data(root: Path, words: str | None = None) -> Data:
    """The splits below a data root.

    Raises:
        UserError: a split is not there.
        DataError: an annotation file that cannot be read.
    """
    splits = {split: _find_split(root, split) for split in ('train', 'val')}
    contents = {split: read_coco(annotations) for split, (annotations, _) in splits.items()}
    names = {
        split: tuple(category['name'] for category in content.get('categories', []))
        for split, content in contents.items()
    }
    if names['train'] != names['val'] or not names['train']:
        raise UserError(
            f'--data {root}: the training file has {len(names["train"])} categories and the validation file '
            f'{len(names["val"])}, which must be the same ones in the same order; correct the files'
        )
    digest = hashlib.sha256()
    for annotations, _ in splits.values():
        digest.update(Path(annotations).read_bytes())
    counts = [len(contents[split]['images']) for split in ('train', 'val')]
    words = words or f'{root} ({counts[0]} training, {counts[1]} validation images)'
    return Data(splits, names['train'], digest.hexdigest(), words)


def _find_split(root: Path, split: str) -> tuple[str, str]:
    if not root.is_dir():
        raise UserError(f'data root {root} does not exist; correct --data, or write --data shapes')
    for annotations, images in LAYOUTS:
        path = root / annotations.format(split=split)
        if path.is_file():
            return str(path), str(root / images.format(split=split))
    wanted = ' or '.join(annotations.format(split=split) for annotations, _ in LAYOUTS)
    raise UserError(f'data root {root} has no {wanted}; put the annotation file there, or correct --data')
