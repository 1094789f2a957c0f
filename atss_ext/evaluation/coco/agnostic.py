"""Class-agnostic recall as a metric of mmengine: the objects found, whatever they are called."""

from collections.abc import Mapping, Sequence
from typing import Any

from atss_ext.evaluation.backend import Backend
from atss_ext.evaluation.coco.base import ColumnMetric
from atss_ext.evaluation.coco.figures import recall_figures
from atss_ext.evaluation.coco.samples import check_limits
from atss_ext.evaluation.coco.table import Found, Truth, read_truth
from atss_ext.registry import METRICS


@METRICS.register_module()
class AgnosticRecall(ColumnMetric):
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
    needs_labels = False

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
        super().__init__(ann_file, metric, classes, backend, collect_device, prefix)
        self.limits = check_limits('limits', limits)

    def read(self) -> Truth:
        """Read the objects, all as one category."""
        return read_truth(self.ann_file, self.classes, 'segm' in self.metrics, agnostic=True)

    def numbers(self, sample: Mapping[str, Any]) -> None:
        """Names do not count."""

    def figures(self, found: Found, iou_type: str) -> dict[str, float]:
        """Recall at each limit."""
        return recall_figures(self.truth, found, iou_type, self.limits, self.backend)
