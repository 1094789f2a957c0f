"""COCO's figures as a metric of mmengine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.backend import Backend
from atss_ext.evaluation.coco.base import ColumnMetric
from atss_ext.evaluation.coco.figures import coco_figures
from atss_ext.evaluation.coco.samples import check_limits
from atss_ext.evaluation.coco.table import Found, Truth, read_truth
from atss_ext.evaluation.samples import labels_of
from atss_ext.registry import METRICS


@METRICS.register_module()
class CocoMetric(ColumnMetric):
    """COCO's twelve figures, of boxes and masks.

    All images of the file count, also those without detections, and no detections at all give 0. Labels are
    brought to the file's categories by their names, whatever the file's ids and order; only these categories
    are scored, and detections of classes that the file does not have are left out.

    Args:
        ann_file: the annotations; not joined to any ``data_root``.
        metric: 'bbox', 'segm', or both.
        max_dets: limits of detections an image and category; precision is taken at the highest.
        classes: names in order of the labels, or a registered dataset that has them ('mmdet.CocoDataset');
            None takes those of the dataset that is tested, and the file's categories where it says none.
        backend: 'fast' (hotcoco), 'reference' (pycocotools), or None for the fast one where it is installed.
        classwise: add ``bbox_AP_<name>`` of every category.
        collect_device: as mmengine's.
        prefix: of the names, 'coco' by default.

    Gives ``bbox_AP``, ``bbox_AP50``, ``bbox_AP75``, ``bbox_APs``, ``bbox_APm``, ``bbox_APl``, ``bbox_AR@1``,
    ``bbox_AR@10``, ``bbox_AR@100``, ``bbox_ARs@100``, ``bbox_ARm@100``, ``bbox_ARl@100``, with ``segm`` for
    masks (:func:`~atss_ext.evaluation.coco.coco_figures`).

    Raises:
        ValueError: an unknown metric, back-end or dataset, a limit below 1, or 'fast' where hotcoco is
            missing.
        DataError: the annotation file cannot be used, or detections do not fit to it.
    """

    default_prefix = 'coco'

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        max_dets: Sequence[int] = (1, 10, 100),
        classes: str | Sequence[str] | None = None,
        backend: Backend | None = None,
        classwise: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(ann_file, metric, classes, backend, collect_device, prefix)
        self.max_dets = check_limits('max_dets', max_dets)
        self.classwise = classwise

    def read(self) -> Truth:
        """Read the objects of the classes."""
        return read_truth(self.ann_file, self._classes, 'segm' in self.metrics)

    def figures(self, found: Found, iou_type: str) -> dict[str, float]:
        """COCO's twelve."""
        return coco_figures(self.truth, found, iou_type, self.max_dets, self.backend, self.classwise)

    def numbers(self, sample: Mapping[str, Any]) -> NDArray[np.int64]:
        """The category number of each detection, 0 where the file has no such category.

        Raises:
            DataError: a label beyond the classes, or two categories of one name.
        """
        classes = self._classes or self.truth.names
        labels = labels_of(sample['pred_instances'], classes, sample['img_id'], 'CocoMetric')
        places = self.truth.number_of_class
        return np.array([places.get(name, 0) for name in classes], np.int64)[labels]

    @property
    def _classes(self) -> Sequence[str] | None:
        return self.classes or (self.dataset_meta or {}).get('classes')
