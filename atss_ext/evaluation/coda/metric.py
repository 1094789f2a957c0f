"""CODA's figures as a metric of mmengine."""

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.backend import Backend
from atss_ext.evaluation.coco.base import ColumnMetric
from atss_ext.evaluation.coco.table import Found
from atss_ext.evaluation.coda.figures import coda_figures
from atss_ext.evaluation.coda.truth import CodaTruth, Layout, read_coda
from atss_ext.evaluation.samples import labels_of
from atss_ext.registry import METRICS


@METRICS.register_module()
class CodaMetric(ColumnMetric):
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
        backend: 'fast' (hotcoco), 'reference' (pycocotools), or None for the fast one where it is installed.
        collect_device: as mmengine's.
        prefix: of the names, 'coda' by default.

    Gives ``bbox_CORNER_mAR`` or ``bbox_AP_common`` and so on
    (:func:`~atss_ext.evaluation.coda.coda_figures`), with ``segm`` for masks.

    Raises:
        ValueError: an unknown metric, layout, back-end or dataset, or 'fast' where hotcoco is missing.
        DataError: the annotation file cannot be used, or detections do not fit to it.
    """

    default_prefix = 'coda'
    needs_labels = False  # where samples have names

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        layout: Layout | None = None,
        classes: str | Sequence[str] | None = None,
        aliases: Mapping[str, str] | None = None,
        backend: Backend | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(ann_file, metric, classes, backend, collect_device, prefix)
        if layout is not None and layout not in get_args(Layout):
            raise ValueError(f"layout must be 'base', '2022' or None, but is {layout!r}.")
        self.layout = layout
        self.aliases = dict(aliases or {})

    @property
    def truth(self) -> CodaTruth:
        """The objects, read when they are first needed."""
        return cast(CodaTruth, super().truth)

    def read(self) -> CodaTruth:
        """Read the objects, of all names."""
        return read_coda(self.ann_file, self.layout, 'segm' in self.metrics)

    def numbers(self, sample: Mapping[str, Any]) -> NDArray[np.int64]:
        """The number of each detection's name.

        Raises:
            DataError: labels without classes, or beyond them.
        """
        places, other = self.truth.number_of_class, self.truth.other
        names = self._names(sample['img_id'], sample['pred_instances'])
        return np.array([places.get(self.aliases.get(name, name), other) for name in names], np.int64)

    def figures(self, found: Found, iou_type: str) -> dict[str, float]:
        """CODA's, of the file's layout."""
        return coda_figures(self.truth, found, iou_type, self.backend)

    def _names(self, image: Any, found: Mapping[str, Any]) -> list[str]:
        """The detector's name of each detection."""
        if 'names' in found:
            return list(found['names'])
        classes = self.classes or (self.dataset_meta or {}).get('classes')
        if not classes:
            raise DataError(
                "neither the metric nor the dataset says the detector's classes; set classes of CodaMetric"
            )
        return [classes[label] for label in labels_of(found, classes, image, 'CodaMetric').tolist()]
