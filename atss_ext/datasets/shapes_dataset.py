"""The shapes world as an mmdet dataset, so that configs need no list of classes."""

from typing import Any, ClassVar

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO

from atss_ext.datasets.checks import DataError
from atss_ext.datasets.shapes import ShapesSpec
from atss_ext.datasets.shapes_drawing import PALETTE
from atss_ext.registry import DATASETS


def shapes_metainfo(spec: ShapesSpec) -> dict[str, Any]:
    """The ``metainfo`` of a world: its class names, and each in its own colour when drawn."""
    classes = spec.category_names
    colours = [next(PALETTE[word] for word in name.split() if word in PALETTE) for name in classes]
    return {'classes': classes, 'palette': colours}


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """A split written by :func:`atss_ext.datasets.shapes_coco.write_coco`.

    The classes are those of ``ShapesSpec()``; a world of another spec passes
    ``metainfo=shapes_metainfo(spec)``.

    Raises:
        DataError: the annotation file's categories are not the dataset's classes.
    """

    METAINFO: ClassVar[dict[str, Any]] = shapes_metainfo(ShapesSpec())

    def COCOAPI(self, ann_file: str) -> COCO:
        """Read the annotation file, and compare its categories with the classes.

        mmdet silently trains on the classes it finds, and numbers them in the file's order. What stands
        under this name is what it reads the file with, and the one place that sees the categories: it
        drops them once its list is made.
        """
        coco = super().COCOAPI(ann_file)
        wanted = list(self.metainfo['classes'])
        found = [entry['name'] for entry in coco.dataset['categories'] if entry['name'] in wanted]
        if found != wanted:
            odd = next((name for name in wanted if name not in found), None)
            problem = 'has its categories in another order' if odd is None else f'has no category {odd!r}'
            raise DataError(f'{self.ann_file} {problem}: pass metainfo=shapes_metainfo(spec) of its spec')
        return coco
