"""Any metric of categories for a model of free names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.naming import CategoryMapper, NameMatch, read_categories
from atss_ext.registry import METRICS

Unmapped = Literal['drop', 'keep']
_HOWS = ('exact', 'synonym', 'encoder', 'none')


@METRICS.register_module()
class NamedMetric(BaseMetric):
    """Brings the ``names`` of an open-ended model to a file's categories, then asks a metric.

    The metric gets ``labels`` and ``names`` of categories, and as ``dataset_meta['classes']`` all categories
    in the file's order, whatever the tested dataset says. With ``top_k`` above 1 it gets each detection as
    often, with ``scores`` (and ``mask_scores``) times the category's weight. Samples are not changed: other
    metrics of the run still see the free names.

    Args:
        metric: config of a metric of mmengine (``LvisMetric``, ``CodaMetric``, ``CocoMetric``), or one that
            is built.
        mapper: arguments of :class:`~.naming.CategoryMapper` but the categories (``encoder``, ``top_k``,
            ...), and ``ann_file`` to read these from; that of the metric by default.
        unmapped: what becomes of detections whose names fit no category: 'drop', or 'keep' with label -1 and
            their names, for a metric that needs no labels (``CodaMetric``, ``AgnosticRecall``).
        collect_device: as mmengine's, of the shares; the metric has its own.
        prefix: of the shares, 'names' by default.

    Gives the metric's figures, and of all detections the shares whose names were mapped by words
    (``names/exact``), by a synonym (``names/synonym``), by the encoder (``names/encoder``) or not at all
    (``names/none``), and how many there are (``names/detections``).

    Raises:
        ValueError: an argument of the mapper is out of range, no annotation file is named, or
            ``unmapped='keep'`` for a metric that goes by labels.
        DataError: the file has no categories, the metric has other ``classes``, or a sample no names.
    """

    default_prefix = 'names'

    def __init__(
        self,
        metric: Mapping[str, Any] | BaseMetric,
        mapper: Mapping[str, Any] | None = None,
        unmapped: Unmapped = 'drop',
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if unmapped not in get_args(Unmapped):
            raise ValueError(f"unmapped must be 'drop' or 'keep', but is {unmapped!r}.")
        self.unmapped = unmapped
        settings = dict(mapper or {})
        given = metric.get('ann_file') if isinstance(metric, Mapping) else getattr(metric, 'ann_file', None)
        ann_file = settings.pop('ann_file', None) or given
        if not ann_file:
            raise ValueError(
                "neither mapper nor metric names an ann_file; add it: mapper=dict(ann_file='...')."
            )
        self.ann_file: str = ann_file
        self.metric: BaseMetric = METRICS.build(dict(metric)) if isinstance(metric, Mapping) else metric
        if unmapped == 'keep' and self._by_labels:
            raise ValueError(
                f"unmapped='keep' gives detections the label -1, but {type(self.metric).__name__} goes by "
                'labels; leave it away, or take a metric that goes by names, such as CodaMetric.'
            )
        self._settings = settings
        self._mapper: CategoryMapper | None = None
        if getattr(self.metric, 'classes', None):
            _ = self.mapper  # refuses other classes at once

    @property
    def mapper(self) -> CategoryMapper:
        """Made when it is first needed: the file may be large."""
        if self._mapper is None:
            found = read_categories(self.ann_file)
            self._check_classes(found.names)
            self._mapper = CategoryMapper(found.names, found.synonyms, **self._settings)
            self.metric.dataset_meta = {**(self.dataset_meta or {}), 'classes': found.names}
        return self._mapper

    @property
    def _by_labels(self) -> bool:
        return bool(getattr(self.metric, 'needs_labels', True))

    def _check_classes(self, names: Sequence[str]) -> None:
        """The metric's own classes would give the labels of the file's categories another meaning."""
        classes = getattr(self.metric, 'classes', None)
        if self._by_labels and classes and tuple(classes) != tuple(names):
            raise DataError(
                f'{type(self.metric).__name__} has the classes {", ".join(list(classes)[:5])}, but '
                f'NamedMetric gives it the {len(names)} categories of {self.ann_file} '
                f'({", ".join(names[:5])}) in their order; leave classes away'
            )

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """Of the dataset; the metric gets the file's categories as its classes."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict[str, Any]) -> None:
        self._dataset_meta = dataset_meta
        if self._mapper is not None:
            self.metric.dataset_meta = {**dataset_meta, 'classes': self._mapper.categories}

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Map a batch and hand it to the metric."""
        mapper = self.mapper
        names = [_names(sample) for sample in data_samples]
        matches = iter(mapper.map(list(chain.from_iterable(names))))
        mapped = []
        for sample, its_names in zip(data_samples, names, strict=True):
            its_matches = [next(matches) for _ in its_names]
            found = map_instances(sample['pred_instances'], its_matches, mapper.categories, self.unmapped)
            mapped.append({**sample, 'pred_instances': found})
            self.results.append(Counter(match.how for match in its_matches))
        self.metric.process(data_batch, mapped)

    def compute_metrics(self, results: list[Counter[str]]) -> dict[str, float]:
        """The shares; on the main process."""
        total: Counter[str] = Counter()
        for row in results:
            total.update(row)
        count = sum(total.values())
        # No int: mmengine's log would have null for it.
        return {**{how: total[how] / max(count, 1) for how in _HOWS}, 'detections': float(count)}

    def evaluate(self, size: int) -> dict[str, float]:
        """Both metrics' figures, on every process; each collects its own results and drops padded images.

        Args:
            size: images of the data set.
        """
        _ = self.mapper  # a process that had no image must know the classes too
        figures: dict[str, float] = self.metric.evaluate(size)
        return {**figures, **super().evaluate(size)}


def map_instances(
    found: Mapping[str, Any], matches: Sequence[NameMatch], categories: Sequence[str], unmapped: Unmapped
) -> dict[str, Any]:
    """Give detections labels and names of categories.

    Args:
        found: fields of N detections: arrays, tensors, or lists.
        matches: of their N names.
        categories: names by label.
        unmapped: see :class:`NamedMetric`.

    Returns:
        the same fields of M detections, as copies.
    """
    rows, labels, weights, names = [], [], [], []
    for row, match in enumerate(matches):
        for label, weight in zip(match.labels, match.weights, strict=True):
            rows.append(row)
            labels.append(label)
            weights.append(weight)
            names.append(categories[label])
        if not match.labels and unmapped == 'keep':
            rows.append(row)
            labels.append(-1)
            weights.append(1.0)
            names.append(found['names'][row])
    fields = {name: _take(values, rows) for name, values in found.items()}
    for name in ('scores', 'mask_scores'):
        if name in fields:
            fields[name] = _weighted(fields[name], weights)
    like = found['labels'] if isinstance(found.get('labels'), torch.Tensor) else found['bboxes']
    device = like.device if isinstance(like, torch.Tensor) else 'cpu'
    return {**fields, 'labels': torch.tensor(labels, dtype=torch.int64, device=device), 'names': names}


def _names(sample: Mapping[str, Any]) -> list[str]:
    names = sample['pred_instances'].get('names')
    if names is None:
        raise DataError(
            f'image {sample.get("img_id")} has detections without names, which NamedMetric maps; take its '
            'metric alone for a model that is not open-ended'
        )
    return list(names)


def _take(values: Any, rows: list[int]) -> Any:
    if isinstance(values, torch.Tensor):
        return values[torch.tensor(rows, dtype=torch.int64, device=values.device)]
    if isinstance(values, np.ndarray):
        return values[np.array(rows, np.int64)]
    return [values[row] for row in rows]


def _weighted(scores: Any, weights: list[float]) -> Any:
    if isinstance(scores, torch.Tensor):
        return scores * torch.tensor(weights, dtype=scores.dtype, device=scores.device)
    return np.asarray(scores) * np.array(weights)
