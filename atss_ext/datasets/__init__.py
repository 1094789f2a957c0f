"""Datasets: the embedded shapes world."""

from atss_ext.datasets.shapes import Scene, ShapesSpec, draw_scene
from atss_ext.datasets.shapes_coco import split_seed, write_coco
from atss_ext.datasets.shapes_dataset import ShapesDataset, shapes_metainfo

__all__ = [
    'Scene',
    'ShapesDataset',
    'ShapesSpec',
    'draw_scene',
    'shapes_metainfo',
    'split_seed',
    'write_coco',
]
