"""COCO's figures as a metric of mmengine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from numpy.typing import NDArray

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.coco.backends import Backend, check_backend
from atss_ext.evaluation.coco.figures import coco_figures
from atss_ext.evaluation.coco.samples import (
    Row,
    array,
    as_row,
    check_limits,
    check_metric,
    classes_of,
    join_rows,
)
from atss_ext.evaluation.coco.table import Truth, read_truth
from atss_ext.registry import METRICS


@METRICS.register_module()
class CocoMetric(BaseMetric):
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
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_backend(backend)
        self.ann_file = ann_file
        self.metrics = check_metric(metric)
        self.max_dets = check_limits('max_dets', max_dets)
        self.classes = classes_of(classes) if isinstance(classes, str) else classes
        self.backend = backend
        self.classwise = classwise
        self._truth: Truth | None = None

    @property
    def truth(self) -> Truth:
        """The objects, read when they are first needed: the classes are known by then."""
        if self._truth is None:
            self._truth = read_truth(self.ann_file, self._classes, 'segm' in self.metrics)
        return self._truth

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep each image's detections; masks as run lengths."""
        for sample in data_samples:
            numbers = self._numbers(sample)
            self.results.append(as_row(self.truth, sample, numbers, 'segm' in self.metrics))

    def compute_metrics(self, results: list[Row]) -> dict[str, float]:
        """Score; on the main process."""
        found, mask_scores = join_rows(results, self.truth)
        figures = {}
        for metric in self.metrics:
            ranked = found.ranked(mask_scores) if metric == 'segm' else found
            values = coco_figures(self.truth, ranked, metric, self.max_dets, self.backend, self.classwise)
            figures.update({f'{metric}_{name}': value for name, value in values.items()})
        logger: MMLogger = MMLogger.get_current_instance()
        logger.info(' '.join(f'{name} {value:.4f}' for name, value in figures.items()))
        return figures

    @property
    def _classes(self) -> Sequence[str] | None:
        return self.classes or (self.dataset_meta or {}).get('classes')

    def _numbers(self, sample: Mapping[str, Any]) -> NDArray[np.int64]:
        """The category number of each detection, 0 where the file has no such category."""
        labels = array(sample['pred_instances']['labels']).astype(np.int64).reshape(-1)
        classes = self._classes or self.truth.names
        if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
            wrong = labels.max() if labels.max() >= len(classes) else labels.min()
            raise DataError(
                f'image {sample["img_id"]} has the label {wrong}, but there are {len(classes)} classes; set '
                'classes '
                'of CocoMetric to those the detector was trained on'
            )
        places = self.truth.number_of_class
        return np.array([places.get(name, 0) for name in classes], np.int64)[labels]
