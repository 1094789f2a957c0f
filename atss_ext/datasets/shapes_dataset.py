"""The shapes world as an mmdet dataset, so that configs need no list of classes."""

import json
from typing import Any, ClassVar

from mmdet.datasets import CocoDataset

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
        ValueError: the annotation file's categories are not the dataset's classes.
    """

    METAINFO: ClassVar[dict[str, Any]] = shapes_metainfo(ShapesSpec())

    def load_data_list(self) -> list[dict[str, Any]]:
        """See :meth:`mmdet.datasets.CocoDataset.load_data_list`."""
        data = super().load_data_list()
        # mmdet silently trains on the classes it finds, and numbers them in the file's order.
        with open(self.ann_file) as file:
            found = [c['name'] for c in json.load(file)['categories'] if c['id'] in self.cat2label]
        wanted = list(self.metainfo['classes'])
        if found != wanted:
            odd = next((name for name in wanted if name not in found), None)
            problem = 'has its categories in another order' if odd is None else f'has no category {odd!r}'
            raise ValueError(f'{self.ann_file} {problem}: pass metainfo=shapes_metainfo(spec) of its spec.')
        return data
