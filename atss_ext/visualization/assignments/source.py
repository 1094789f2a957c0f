"""The images with annotations that assignments are shown on."""

import contextlib
import copy
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from atss_ext.datasets.checks import DataError, check_coco, nearest, read_coco


class ImageSource:
    """The images of a config's dataset, or of an annotation file in COCO format.

    Args:
        cfg: the config.
        split: 'val' or 'train', whose dataset is taken.
        ann_file: of other images; their folder is said with an image alone.
        image_dir: folder of the images of ``ann_file``.

    Raises:
        DataError: a config without such a dataset, or an annotation file that cannot be used.
    """

    def __init__(
        self, cfg: Config, split: str = 'val', ann_file: str | None = None, image_dir: str | None = None
    ) -> None:
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        dataset = _of_file(ann_file, image_dir) if ann_file else _of_config(cfg, split)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints how far it is
            self.dataset = DATASETS.build(dataset)
        self.where = ann_file or getattr(self.dataset, 'ann_file', None) or f'{split}_dataloader'

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(self.dataset.metainfo.get('classes') or ())

    def __getitem__(self, index: int) -> dict[str, Any]:
        """What a pipeline starts from.

        Raises:
            DataError: no image has that place.
        """
        if not 0 <= index < len(self):
            raise DataError(f'image {index} does not exist: {self.where} has {len(self)}, counted from 0')
        return copy.deepcopy(self.dataset.get_data_info(index))

    def find(self, image: str) -> dict[str, Any]:
        """The image of a file name or path; a file of that path is read, one of the dataset otherwise.

        Raises:
            DataError: no image, or none but others of the same name, is called so.
        """
        wanted = Path(image)
        infos = list(self)
        paths = [Path(info['img_path']) for info in infos]
        same = [place for place, path in enumerate(paths) if path.parts[-len(wanted.parts) :] == wanted.parts]
        if not same and wanted.is_file():
            same = [place for place, path in enumerate(paths) if path.name == wanted.name]
        if not same:
            near = nearest(wanted.name, {path.name for path in paths})
            raise DataError(f'{self.where} has no image {image}{near}; name one of its file_name, or --index')
        if len(same) > 1:
            raise DataError(
                f'{len(same)} images of {self.where} are called {image}; name the folder too, or --index'
            )
        found = infos[same[0]]
        if wanted.is_file():
            found['img_path'] = os.fspath(wanted)
        return found

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))


def _of_config(cfg: Config, split: str) -> dict[str, Any]:
    loader = cfg.get(f'{split}_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    while isinstance(dataset, Mapping) and isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']  # of a wrapper that repeats or balances it
    if not isinstance(dataset, Mapping):
        raise DataError(f'config {cfg.filename} has no {split}_dataloader.dataset; add it, or name --ann')
    return {**dataset, 'pipeline': []}


def _of_file(ann_file: str, image_dir: str | None) -> dict[str, Any]:
    content = read_coco(ann_file)
    check_coco(content, ann_file)
    classes = [category['name'] for category in content.get('categories', [])]
    return {
        'type': 'mmdet.CocoDataset',
        'ann_file': os.path.abspath(ann_file),
        'data_prefix': {'img': os.path.abspath(image_dir) if image_dir else ''},
        'metainfo': {'classes': classes},
        'test_mode': True,
        'pipeline': [],
    }
