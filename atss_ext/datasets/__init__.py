"""Datasets: the embedded shapes world, CODA, LVIS."""

from atss_ext.datasets.coda import CODA_BASE_COMMON, CODA_CLASSES, CODA_COMMON, CodaDataset
from atss_ext.datasets.lvis_minival import LvisDataset
from atss_ext.datasets.shapes import Scene, ShapesSpec, draw_scene
from atss_ext.datasets.shapes_coco import split_seed, write_coco
from atss_ext.datasets.shapes_dataset import ShapesDataset, shapes_metainfo

__all__ = [
    'CODA_BASE_COMMON',
    'CODA_CLASSES',
    'CODA_COMMON',
    'CodaDataset',
    'LvisDataset',
    'Scene',
    'ShapesDataset',
    'ShapesSpec',
    'draw_scene',
    'shapes_metainfo',
    'split_seed',
    'write_coco',
]
