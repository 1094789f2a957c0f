"""All parts of an error report of one result file, and its figures as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.coco.result_file import Results
from atss_ext.evaluation.errors.breakdown import Group, by_frequency, by_size, cross_counts
from atss_ext.evaluation.errors.confusion import confusion_matrix, counted_cells
from atss_ext.evaluation.errors.curves import average_precision, mean_curve, precision_curves
from atss_ext.evaluation.errors.kinds import WRONG, Kind, Kinds, Outcome, classify
from atss_ext.evaluation.errors.matching import match
from atss_ext.evaluation.errors.results import read_detections
from atss_ext.evaluation.errors.truth import Truth, read_truth
from atss_ext.evaluation.errors.worst import WorstImage, worst_images

BACKGROUND_NAME = 'background'


@dataclass(frozen=True)
class ErrorReport:
    """What a result file gets wrong.

    Attributes:
        kinds: the kind of each detection and the outcome of each object.
        curves: precision over recall, [R, K].
        matrix: confusion matrix, [K + 1, K + 1].
        sizes: counts by size.
        frequencies: counts by frequency of the category.
        worst: the worst images, worst first.
        notes: sentences about what was left out.
    """

    kinds: Kinds
    curves: NDArray[np.float64]
    matrix: NDArray[np.int64]
    sizes: list[Group]
    frequencies: list[Group]
    worst: list[WorstImage]
    notes: tuple[str, ...]

    @property
    def truth(self) -> Truth:
        """The objects."""
        return self.kinds.matching.truth

    @cached_property
    def category_objects(self) -> NDArray[np.int64]:
        """Objects by category and :class:`Outcome`, [K, 5]."""
        return cross_counts(self.truth.category, self.kinds.outcome, len(self.truth.names), len(Outcome))

    @cached_property
    def category_detections(self) -> NDArray[np.int64]:
        """Detections by category and :class:`Kind`, [K, 7]."""
        category = self.kinds.matching.detections.category
        return cross_counts(category, self.kinds.kind, len(self.truth.names), len(Kind))


def error_report(
    content: Mapping[str, Any],
    results: Results,
    *,
    iou: float = 0.5,
    score: float = 0.05,
    worst: int = 12,
    ann_file: str = 'the annotation file',
    result_file: str = 'the result file',
) -> ErrorReport:
    """Compare a result file with an annotation file.

    Args:
        content: the parsed annotation file, of COCO, LVIS or CODA.
        results: the parsed result file.
        iou: from which IoU a detection finds an object, in (0, 1].
        score: detections of a lower score are no errors; the curves take them all.
        worst: how many of the worst images are kept.
        ann_file: path of the annotation file, for messages.
        result_file: path of the result file, for messages.

    Raises:
        DataError: a file cannot be used; the message is one sentence.
        ValueError: ``iou`` is outside (0, 1].
    """
    truth = read_truth(content, ann_file)
    detections = read_detections(results, truth, result_file)
    matching = match(truth, detections, iou)
    kinds = classify(matching, score)
    return ErrorReport(
        kinds=kinds,
        curves=precision_curves(matching),
        matrix=confusion_matrix(kinds),
        sizes=by_size(kinds),
        frequencies=by_frequency(kinds),
        worst=worst_images(kinds, worst),
        notes=detections.notes,
    )


def figures(report: ErrorReport) -> dict[str, Any]:
    """The figures of a report, ready for JSON; a value that does not exist is None."""
    truth, kinds = report.truth, report.kinds
    matching = kinds.matching
    mean = mean_curve(report.curves)
    objects, detections = report.category_objects.sum(axis=0), report.category_detections.sum(axis=0)
    return {
        'iou': matching.threshold,
        'score': kinds.score,
        'federated': truth.federated,
        'images': len(truth.images),
        'ap': _value(float(mean.mean())),
        **_counts(objects, detections),
        'by_size': {group.name: _group(group) for group in report.sizes},
        'by_frequency': {group.name: _group(group) for group in report.frequencies},
        'categories': _categories(report),
        'confusion': _confusion(report),
        'mean_precision': None if mean[0] < 0 else mean.tolist(),
        'worst_images': [
            {'id': truth.images[one.row]['id'], 'cost': round(one.cost, 6)} for one in report.worst
        ],
        'notes': list(report.notes),
    }


def _counts(objects: NDArray[np.int64], detections: NDArray[np.int64]) -> dict[str, Any]:
    """Objects by outcome and detections by kind, with recall and precision."""
    total = int(objects.sum() - objects[Outcome.IGNORED])
    counted = int(detections.sum() - detections[Kind.IGNORED])
    return {
        'objects': {'total': total, **{one.name.lower(): int(objects[one]) for one in Outcome}},
        'recall': int(objects[Outcome.FOUND]) / total if total else None,
        'detections': {'total': counted, **{one.name.lower(): int(detections[one]) for one in Kind}},
        'precision': int(detections[Kind.CORRECT]) / counted if counted else None,
    }


def _group(group: Group) -> dict[str, Any]:
    extra = {} if group.categories is None else {'categories': group.categories}
    return {**extra, **_counts(group.objects, group.detections)}


def _categories(report: ErrorReport) -> list[dict[str, Any]]:
    truth = report.truth
    ap = average_precision(report.curves).tolist()
    return [
        {
            'id': truth.category_ids[row],
            'name': truth.names[row],
            'ap': _value(ap[row]),
            **_counts(report.category_objects[row], report.category_detections[row]),
        }
        for row in range(len(truth.names))
    ]


def _confusion(report: ErrorReport) -> list[dict[str, Any]]:
    names = [*report.truth.names, BACKGROUND_NAME]
    ids = [*report.truth.category_ids, None]  # a category may be called background, too
    return [
        {
            'true': names[row],
            'true_id': ids[row],
            'detected': names[column],
            'detected_id': ids[column],
            'count': count,
        }
        for row, column, count in counted_cells(report.matrix)
    ]


def wrong_total(detections: Mapping[str, int]) -> int:
    """How many detections are wrong, of counts by name of kind."""
    return sum(detections[kind.name.lower()] for kind in WRONG)


def _value(number: float) -> float | None:
    return None if number < 0 else number
