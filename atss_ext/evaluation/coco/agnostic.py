"""Class-agnostic recall as a metric of mmengine: the objects found, whatever they are called."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from atss_ext.evaluation.coco.backends import Backend, check_backend
from atss_ext.evaluation.coco.figures import agnostic_recall
from atss_ext.evaluation.coco.samples import Row, as_row, check_limits, check_metric, classes_of, join_rows
from atss_ext.evaluation.coco.table import Truth, read_truth
from atss_ext.registry import METRICS


@METRICS.register_module()
class AgnosticRecall(BaseMetric):
    """Average recall where names do not count, of boxes and masks.

    For open-ended models, which have no labels, and for detectors of other classes: neither labels nor names
    of the samples are read. All images of the file count, also those without detections. Crowds are ignored
    as COCO does.

    Args:
        ann_file: a file in COCO's, LVIS's or CODA's format; not joined to any ``data_root``.
        metric: 'bbox', 'segm', or both.
        limits: the best detections of an image that count, each limit for itself.
        classes: only objects of these names are to be found; names, or a registered dataset that has them;
            None takes all objects of the file.
        backend: 'fast' (hotcoco), 'reference' (pycocotools), or None for the fast one where it is installed.
        collect_device: as mmengine's.
        prefix: of the names, 'agnostic' by default.

    Gives ``bbox_AR@100`` (mean over the IoU thresholds 0.5, 0.55, ..., 0.95), ``bbox_AR50@100`` and
    ``bbox_AR75@100`` of each limit, with ``segm`` for masks; in [0, 1], 0 where nothing was found and -1
    where there is nothing to find.

    Raises:
        ValueError: an unknown metric, back-end or dataset, a limit below 1, or 'fast' where hotcoco is
            missing.
        DataError: the annotation file cannot be used, or detections do not fit to it.
    """

    default_prefix = 'agnostic'

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        limits: Sequence[int] = (100,),
        classes: str | Sequence[str] | None = None,
        backend: Backend | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_backend(backend)
        self.ann_file = ann_file
        self.metrics = check_metric(metric)
        self.limits = check_limits('limits', limits)
        self.classes = classes_of(classes) if isinstance(classes, str) else classes
        self.backend = backend
        self._truth: Truth | None = None

    @property
    def truth(self) -> Truth:
        """The objects, read when they are first needed."""
        if self._truth is None:
            self._truth = read_truth(self.ann_file, self.classes, 'segm' in self.metrics, agnostic=True)
        return self._truth

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep each image's detections; masks as run lengths."""
        for sample in data_samples:
            self.results.append(as_row(self.truth, sample, None, 'segm' in self.metrics))

    def compute_metrics(self, results: list[Row]) -> dict[str, float]:
        """Score; on the main process."""
        found, mask_scores = join_rows(results, self.truth)
        figures = {}
        for metric in self.metrics:
            ranked = found.ranked(mask_scores) if metric == 'segm' else found
            values = agnostic_recall(self.truth, ranked, metric, self.limits, self.backend)
            figures.update({f'{metric}_{name}': value for name, value in values.items()})
        logger: MMLogger = MMLogger.get_current_instance()
        logger.info(' '.join(f'{name} {value:.4f}' for name, value in figures.items()))
        return figures
