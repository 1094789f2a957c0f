"""CODA's figures as a metric of mmengine."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.coco_scores import xywh
from atss_ext.evaluation.coda_figures import CodaTruth, Entry, Layout, coda_figures, read_coda
from atss_ext.evaluation.samples import (
    array,
    check_choice,
    check_image,
    check_labels,
    check_once,
    classes_of,
    run_lengths,
)
from atss_ext.registry import METRICS

Row = tuple[Any, list[Entry]]


@METRICS.register_module()
class CodaMetric(BaseMetric):
    """The official figures of CODA's base benchmark or of CODA2022, of boxes and masks.

    All images of the file count, also those without detections or objects. Names are compared, never ids or
    labels: a detector may have other classes than the file, in any order. Detections whose names are no
    common class of CODA count where names do not.

    Args:
        ann_file: the annotations; corner_case.json or another's path, not joined to any ``data_root``.
        metric: 'bbox', 'segm', or both.
        layout: 'base' or '2022', which figures; None tells by the file's name, as ``CodaDataset`` does.
        classes: the detector's classes in order of its labels, or the name of a registered dataset that it
            was trained on ('mmdet.CocoDataset'); None takes those of the dataset that is tested. Samples
            that say ``names`` themselves, as VL-SAM's, need none.
        aliases: the detector's name of a class to CODA's, such as ``dict(person='pedestrian')``.
        collect_device: as mmengine's.
        prefix: of the names, 'coda' by default.

    Gives ``bbox_CORNER_mAR`` or ``bbox_AP_common`` and so on (:func:`~.coda_figures.coda_figures`), with
    ``segm`` for masks.

    Raises:
        ValueError: an unknown metric, layout or dataset.
        DataError: the annotation file cannot be used, or detections do not fit to it.
    """

    default_prefix = 'coda'

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        layout: Layout | None = None,
        classes: str | Sequence[str] | None = None,
        aliases: Mapping[str, str] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.metrics = check_choice('metric', metric, ('bbox', 'segm'))
        if layout is not None and layout not in get_args(Layout):
            raise ValueError(f"layout must be 'base', '2022' or None, but is {layout!r}.")
        self.layout = layout
        self.classes = classes_of(classes) if isinstance(classes, str) else classes
        self.aliases = dict(aliases or {})
        self._truth: CodaTruth | None = None
        self._images: frozenset[Any] = frozenset()

    @property
    def truth(self) -> CodaTruth:
        """The annotations, read when they are first needed."""
        if self._truth is None:
            self._truth = read_coda(self.ann_file, self.layout)
            self._images = frozenset(image['id'] for image in self._truth.images)
            if 'segm' in self.metrics:
                _need_masks(self._truth, self.ann_file)
        return self._truth

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep each image's detections; masks as run lengths."""
        _ = self.truth  # a wrong file is told before the images are through
        for sample in data_samples:
            image, found = sample['img_id'], sample['pred_instances']
            check_image(image, self._images, self.ann_file)
            self.results.append((image, self._detections(image, found)))

    def compute_metrics(self, results: list[Row]) -> dict[str, float]:
        """Score; on the main process."""
        check_once([image for image, _ in results], self.ann_file)
        detections = [entry for _, entries in results for entry in entries]
        figures = {}
        for metric in self.metrics:
            ranked = [{**entry, 'score': entry[f'{metric}_score']} for entry in detections]
            found = coda_figures(self.truth, ranked, metric)
            figures.update({f'{metric}_{name}': value for name, value in found.items()})
        logger: MMLogger = MMLogger.get_current_instance()
        logger.info(' '.join(f'{name} {value:.4f}' for name, value in figures.items()))
        return figures

    def _detections(self, image: Any, found: Mapping[str, Any]) -> list[Entry]:
        boxes = array(found['bboxes']).astype(np.float64).reshape(-1, 4)
        scores = array(found['scores']).astype(np.float64)
        mask_scores = array(found['mask_scores']).astype(np.float64) if 'mask_scores' in found else scores
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all() and np.isfinite(mask_scores).all()):
            raise DataError(f'image {image} has a box or a score that is not finite; the model has diverged')
        entries = [
            {
                'image_id': image,
                'name': name,
                'bbox': xywh(box),
                'bbox_score': float(score),
                'segm_score': float(mask_score),
            }
            for box, score, mask_score, name in zip(
                boxes, scores, mask_scores, self._names(image, found), strict=True
            )
        ]
        if 'segm' in self.metrics:
            for entry, mask in zip(entries, run_lengths(image, found), strict=True):
                entry['segmentation'] = mask
        return entries

    def _names(self, image: Any, found: Mapping[str, Any]) -> list[str]:
        """Return CODA's name of each detection, or the detector's where CODA has none."""
        if 'names' in found:
            return [self.aliases.get(name, name) for name in found['names']]
        classes = self.classes or (self.dataset_meta or {}).get('classes')
        if not classes:
            raise DataError(
                "neither the metric nor the dataset says the detector's classes; set classes of CodaMetric"
            )
        labels = array(found['labels']).astype(np.int64)
        check_labels(labels, classes, image, 'CodaMetric')
        return [self.aliases.get(classes[label], classes[label]) for label in labels]


def _need_masks(truth: CodaTruth, ann_file: str) -> None:
    for entry in truth.objects:
        if not entry.get('segmentation'):
            raise DataError(
                f"annotation {entry.get('id')} of {ann_file} has no segmentation, which metric='segm' needs; "
                "choose metric='bbox'"
            )
