"""What mmdet's test loop draws of open-ended detections: their names, not the classes of a data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.visualization import DetLocalVisualizer
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.registry import HOOKS, VISUALIZERS
from atss_ext.visualization.overlay import overlay_frame


@VISUALIZERS.register_module()
class OpenEndedVisualizer(DetLocalVisualizer):
    """mmdet's visualizer, for instances that bring ``names`` and masks as run lengths."""

    def add_datasample(
        self,
        name: str,
        image: NDArray[np.uint8],
        data_sample: Any = None,
        draw_gt: bool = True,
        **kwargs: Any,
    ) -> None:
        """Draw; a picture of no annotations is not put beside."""
        has_gt = data_sample is not None and len(data_sample.get('gt_instances', ()))
        super().add_datasample(name, image, data_sample, draw_gt=draw_gt and bool(has_gt), **kwargs)

    def _draw_instances(
        self, image: NDArray[np.uint8], instances: InstanceData, classes: Any, palette: Any
    ) -> NDArray[np.uint8]:
        if 'names' not in instances:
            return super()._draw_instances(image, instances, classes, palette)
        masks = instances.masks
        return overlay_frame(
            np.ascontiguousarray(image),
            instances.bboxes.numpy(),
            instances.names,
            instances.scores.numpy(),
            lambda index: rle.decode(masks[index]).astype(bool),
        )


@HOOKS.register_module()
class OpenEndedVisualizationHook(DetVisualizationHook):
    """mmdet's hook, which an image that could not be read does not end."""

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draw the samples that have a result."""
        readable = [sample for sample in outputs if 'vlsam_error' not in sample.metainfo]
        super().after_test_iter(runner, batch_idx, data_batch, readable)
