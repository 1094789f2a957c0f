"""LVIS's figures as a metric of mmengine."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from numpy.typing import NDArray

from atss_ext.evaluation.backend import Backend, check_backend
from atss_ext.evaluation.lvis.detections import (
    ImageDetections,
    best_of_categories,
    best_of_image,
    of_boxes,
    of_masks,
    searched_only,
)
from atss_ext.evaluation.lvis.figures import lvis_figures
from atss_ext.evaluation.lvis.truth import LvisTruth
from atss_ext.evaluation.progress import scoring
from atss_ext.evaluation.samples import (
    boxes_of,
    check_choice,
    check_image,
    check_lengths,
    check_once,
    labels_of,
    run_lengths,
    scores_of,
)
from atss_ext.registry import METRICS

Row = dict[str, ImageDetections]

# With less than this many detections kept, limiting them is not worth its time.
_FEW = 1_000_000


@METRICS.register_module()
class LvisMetric(BaseMetric):
    """LVIS AP and LVIS fixed AP, of boxes and masks, as lvis-api counts them.

    All images of the file count, also those without detections. Labels are brought to the file's categories
    by the names in the dataset's ``metainfo['classes']``; only these categories are scored.

    Args:
        ann_file: LVIS v1 annotations; minival's for minival.
        metric: 'bbox', 'segm', or both.
        protocol: 'standard' (``max_dets`` an image), 'fixed' (``per_category`` a category over all images, no
            limit an image: the model's own, such as ``max_per_img``, must be off too), or both.
        max_dets: detections an image, the best ones.
        per_category: detections a category, the best ones.
        backend: 'fast' (hotcoco), 'reference' (this package's own), or None for the fast one where it is
            installed; both give the same.
        collect_device: as mmengine's.
        prefix: of the names, 'lvis' by default.

    Gives ``bbox_AP``, ``bbox_AP50``, ``bbox_AP75``, ``bbox_APs``, ``bbox_APm``, ``bbox_APl``, ``bbox_APr``,
    ``bbox_APc``, ``bbox_APf``, ``bbox_AR@300`` and so on (:func:`~atss_ext.evaluation.lvis.lvis_figures`),
    with ``segm`` for masks and ``bbox_fixed_AP`` for fixed AP; in [0, 1], and -1 where there are no objects.

    Raises:
        ValueError: an unknown metric, protocol or back-end, a limit below 1, or 'fast' where hotcoco is
            missing.
        DataError: the annotation file cannot be used, or detections do not fit to it.
    """

    default_prefix = 'lvis'

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        protocol: str | Sequence[str] = 'standard',
        max_dets: int = 300,
        per_category: int = 10_000,
        backend: Backend | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_backend(backend)
        self.ann_file = ann_file
        self.backend = backend
        self.metrics = check_choice('metric', metric, ('bbox', 'segm'))
        self.protocols = check_choice('protocol', protocol, ('standard', 'fixed'))
        for name, limit in (('max_dets', max_dets), ('per_category', per_category)):
            if limit < 1:
                raise ValueError(f'{name} must be at least 1, but is {limit}.')
        self.max_dets = max_dets
        self.per_category = per_category
        self._truth: LvisTruth | None = None
        self._stored = 0
        self._limit_at = _FEW

    @property
    def truth(self) -> LvisTruth:
        """The annotations, read when they are first needed: the classes are known by then."""
        if self._truth is None:
            self._truth = LvisTruth.read(self.ann_file, self._classes, 'segm' in self.metrics)
        return self._truth

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep of each image what may count; masks as run lengths."""
        for sample in data_samples:
            row = self._row(sample)
            self.results.append(row)
            self._stored += sum(len(one.scores) for one in row.values())
        if 'fixed' in self.protocols and self._stored > self._limit_at:
            self._limit()

    def compute_metrics(self, results: list[Row]) -> dict[str, float]:
        """Score; on the main process, and 0 where nothing was found."""
        check_once([next(iter(row.values())).image for row in results], self.ann_file)
        figures: dict[str, float] = {}
        for metric in self.metrics:
            detections = [row[metric] for row in results]
            count = sum(len(one.scores) for one in detections)
            for protocol in self.protocols:
                with scoring(type(self).__name__, len(self.truth.image_rows), count, f'{metric}, {protocol}'):
                    found = lvis_figures(
                        self.truth, detections, protocol, self.max_dets, self.per_category, self.backend
                    )
                middle = 'fixed_' if protocol == 'fixed' else ''
                figures.update({f'{metric}_{middle}{name}': value for name, value in found.items()})
        logger: MMLogger = MMLogger.get_current_instance()
        logger.info(' '.join(f'{name} {value:.4f}' for name, value in figures.items()))
        self._stored, self._limit_at = 0, _FEW
        return figures

    @cached_property
    def _rows_of_labels(self) -> NDArray[np.int64]:
        return self.truth.rows_of_classes(self._classes)

    @property
    def _classes(self) -> Sequence[str] | None:
        return (self.dataset_meta or {}).get('classes')

    def _row(self, sample: Mapping[str, Any]) -> Row:
        identity, found = sample['img_id'], sample['pred_instances']
        check_image(identity, self.truth.image_rows, self.ann_file)
        image = self.truth.image_rows[identity]
        classes = self._classes or self.truth.names
        categories = self._rows_of_labels[labels_of(found, classes, identity, 'the tested dataset')]
        row: Row = {}
        for metric in self.metrics:
            if metric == 'bbox':
                boxes, scores = boxes_of(found, identity), scores_of(found, 'scores', identity)
                check_lengths(identity, boxes=boxes, scores=scores, labels=categories)
                row[metric] = of_boxes(image, categories, scores, boxes)
            else:
                key = 'mask_scores' if 'mask_scores' in found else 'scores'
                masks = run_lengths(identity, found, self.truth.image_at(image)[1])
                scores = scores_of(found, key, identity)
                check_lengths(identity, masks=masks, **{key: scores}, labels=categories)
                row[metric] = of_masks(self.truth, image, categories, scores, masks)
        if 'fixed' not in self.protocols:
            row = {
                name: searched_only(best_of_image(one, self.max_dets), self.truth)
                for name, one in row.items()
            }
        return row

    def _limit(self) -> None:
        """Let go of what the limit a category excludes already."""
        spare = self.max_dets if 'standard' in self.protocols else 0
        kept = {
            metric: best_of_categories([row[metric] for row in self.results], self.per_category, spare)
            for metric in self.metrics
        }
        self.results[:] = [dict(zip(kept, rows, strict=True)) for rows in zip(*kept.values(), strict=True)]
        self._stored = sum(len(one.scores) for row in self.results for one in row.values())
        # Twice as many as are left: each detection is then sorted a few times at most.
        self._limit_at = max(_FEW, 2 * self._stored)
