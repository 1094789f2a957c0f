"""What the metrics over columns share: arguments, collecting, and saying the figures."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from numpy.typing import NDArray

from atss_ext.evaluation.backend import Backend, check_backend
from atss_ext.evaluation.coco.samples import Row, as_row, join_rows
from atss_ext.evaluation.coco.table import Found, Truth
from atss_ext.evaluation.progress import scoring
from atss_ext.evaluation.samples import check_choice, classes_of


class ColumnMetric(BaseMetric):
    """A metric whose figures come from the objects of a file and the detections of all images.

    Args:
        ann_file: the annotations; not joined to any ``data_root``.
        metric: 'bbox', 'segm', or both.
        classes: names, or a registered dataset that has them ('mmdet.CocoDataset').
        backend: 'fast', 'reference' or None.
        collect_device: as mmengine's.
        prefix: of the names.

    Raises:
        ValueError: an unknown metric, back-end or dataset, or 'fast' where its library is missing.
    """

    needs_labels: ClassVar[bool] = True
    """False where detections without a label (-1) can be scored all the same."""

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str],
        classes: str | Sequence[str] | None,
        backend: Backend | None,
        collect_device: str,
        prefix: str | None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_backend(backend)
        self.ann_file = ann_file
        self.metrics = check_choice('metric', metric, ('bbox', 'segm'))
        self.classes = classes_of(classes) if isinstance(classes, str) else classes
        self.backend = backend
        self._truth: Truth | None = None

    @abstractmethod
    def read(self) -> Truth:
        """Read the objects."""

    @abstractmethod
    def numbers(self, sample: Mapping[str, Any]) -> NDArray[np.int64] | None:
        """The category number of each detection, see :func:`~.samples.as_row`."""

    @abstractmethod
    def figures(self, found: Found, iou_type: str) -> dict[str, float]:
        """Score all detections, 'bbox' or 'segm'."""

    @property
    def truth(self) -> Truth:
        """The objects, read when they are first needed: the classes are known by then."""
        if self._truth is None:
            self._truth = self.read()
        return self._truth

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep each image's detections; masks as run lengths."""
        for sample in data_samples:
            row = as_row(self.truth, sample, self.numbers(sample), 'segm' in self.metrics)
            self.results.append(row)

    def compute_metrics(self, results: list[Row]) -> dict[str, float]:
        """Score; on the main process."""
        found, mask_scores = join_rows(results, self.truth)
        figures = {}
        for metric in self.metrics:
            ranked = found.ranked(mask_scores) if metric == 'segm' else found
            with scoring(type(self).__name__, len(self.truth.sizes), len(ranked), metric):
                values = self.figures(ranked, metric)
            figures.update({f'{metric}_{name}': value for name, value in values.items()})
        logger: MMLogger = MMLogger.get_current_instance()
        logger.info(' '.join(f'{name} {value:.4f}' for name, value in figures.items()))
        return figures
