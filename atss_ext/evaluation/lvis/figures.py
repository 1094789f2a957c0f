"""LVIS AP and AR from detections and truth.

Sources: Gupta, Dollar, Girshick, *LVIS* (CVPR 2019), section 3 and appendix; fixed AP: Dave, Dollar, Ramanan,
Kirillov, Girshick, *Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details*
(arXiv 2102.01066), section 4.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.backend import Backend, choose_backend
from atss_ext.evaluation.grid import AREAS, THRESHOLDS
from atss_ext.evaluation.lvis.detections import (
    ImageDetections,
    best_of_categories,
    best_of_image,
    searched_only,
)
from atss_ext.evaluation.lvis.fast import fast_curves
from atss_ext.evaluation.lvis.matching import RECALLS, LvisCurves, match, outside
from atss_ext.evaluation.lvis.truth import FREQUENCIES, LvisTruth, contains


def lvis_figures(
    truth: LvisTruth,
    detections: Sequence[ImageDetections],
    protocol: str = 'standard',
    max_dets: int = 300,
    per_category: int = 10_000,
    backend: Backend | None = None,
) -> dict[str, float]:
    """Score detections.

    Args:
        truth: the annotations; images without detections count as well.
        detections: at most one entry an image.
        protocol: 'standard', the ``max_dets`` best of an image; 'fixed', the ``per_category`` best of a
            category over all images, and no limit an image.
        max_dets: an image.
        per_category: over all images.
        backend: 'fast' (hotcoco), 'reference' (this package), or None for the fast one where it is installed;
            both give the same.

    Returns:
        AP, AP50, AP75, APs, APm, APl (objects up to 32 and 96 pixels squared, and larger), APr, APc, APf
        (rare, common, frequent categories), and AR, ARs, ARm, ARl, with the limit an image (``AR@300``) if
        there is one; in [0, 1]; -1 where there is no such object.

    Raises:
        ValueError: an unknown protocol or back-end, or 'fast' where hotcoco is missing.
    """
    if protocol not in ('standard', 'fixed'):
        raise ValueError(f"protocol must be 'standard' or 'fixed', but is {protocol!r}.")
    if protocol == 'standard':
        limited = [best_of_image(row, max_dets) for row in detections]
    else:
        limited = best_of_categories(detections, per_category)
    draw = fast_curves if choose_backend(backend) == 'fast' else curves
    result = draw(truth, [searched_only(row, truth) for row in limited])
    return _summary(result, truth, f'@{max_dets}' if protocol == 'standard' else '')


def curves(truth: LvisTruth, rows: Sequence[ImageDetections]) -> LvisCurves:
    """Precision and recall of every category; ``rows`` hold detections that count only."""
    shape = (len(AREAS), len(THRESHOLDS), len(truth.names))
    precision, recall = np.full((*shape, len(RECALLS)), -1.0), np.full(shape, -1.0)
    totals = _totals(truth)  # [A, K]
    for category, scores, matched, ignored in _categories(truth, rows):
        # The order of images decides between equal scores, as in the reference.
        order = np.argsort(-scores, kind='stable')
        for area in np.flatnonzero(totals[:, category]):
            counted = ~ignored[area][:, order]
            hits = matched[area][:, order]
            precision[area, :, category], recall[area, :, category] = _curve(
                hits & counted, ~hits & counted, int(totals[area, category])
            )
    return LvisCurves(precision, recall)


def _totals(truth: LvisTruth) -> NDArray[np.int64]:
    """How many objects of each category count, by range of areas."""
    totals = np.zeros((len(AREAS), len(truth.names)), np.int64)
    objects = truth.objects
    if len(objects):
        counted = ~(outside(objects.areas) | objects.ignore)
        np.add.at(totals.T, objects.pairs % len(truth.names), counted.T)
    return totals


def _categories(
    truth: LvisTruth, rows: Sequence[ImageDetections]
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Category, scores [N], matched and ignored [A, T, N] of its detections, by image; one at a time."""
    shares: list[list[tuple[ImageDetections, NDArray[np.int64]]]] = [[] for _ in truth.names]
    for row in sorted(rows, key=lambda one: one.image):
        order = np.lexsort((-row.scores, row.categories))
        ends = np.flatnonzero(np.diff(row.categories[order])) + 1
        for places in np.split(order, ends) if len(order) else ():
            shares[row.categories[places[0]]].append((row, places))
    nothing = np.zeros((len(AREAS), len(THRESHOLDS), 0), bool)
    for category, share in enumerate(shares):
        parts = [_pair(truth, row.take(places), category) for row, places in share]
        scores = np.concatenate([np.zeros(0), *(row.scores[places] for row, places in share)])
        matched = np.concatenate([nothing, *(part[0] for part in parts)], axis=2)
        ignored = np.concatenate([nothing, *(part[1] for part in parts)], axis=2)
        yield category, scores, matched, ignored


def _pair(truth: LvisTruth, found: ImageDetections, category: int) -> tuple[Any, Any]:
    """Matched and ignored, [A, T, D], of the detections of one category on one image."""
    pair = truth.pairs(found.image, np.array([category]))
    objects = truth.objects_of(int(pair[0]))
    if objects is None:
        matched = np.zeros((len(AREAS), len(THRESHOLDS), len(found.scores)), bool)
        ignored = matched
    else:
        matched, ignored = match(found.regions, objects)
    excused = outside(found.areas)[:, None, :] | contains(pair, truth.partial)
    return matched, ignored | (~matched & excused)


def _curve(
    hits: NDArray[np.bool_], misses: NDArray[np.bool_], total: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision at the recalls, [T, R], and the last recall, [T], of N detections in order, [T, N]."""
    read = np.zeros((len(hits), len(RECALLS)))
    if not hits.shape[1]:
        return read, np.zeros(len(hits))
    found, wrong = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
    recall = found / total
    precision = found / (found + wrong + np.spacing(1))
    # At a recall counts the best precision of that recall and all higher ones.
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    for threshold in range(len(hits)):
        places = np.searchsorted(recall[threshold], RECALLS, side='left')
        reached = places < hits.shape[1]
        read[threshold, reached] = best[threshold, places[reached]]
    return read, recall[:, -1]


def _summary(result: LvisCurves, truth: LvisTruth, limit: str) -> dict[str, float]:
    precision, recall = result
    at = {round(100 * threshold): place for place, threshold in enumerate(THRESHOLDS.tolist())}
    figures = {
        'AP': _mean(precision[0]),
        'AP50': _mean(precision[0, at[50]]),
        'AP75': _mean(precision[0, at[75]]),
    }
    figures.update({f'AP{name}': _mean(precision[area]) for area, name in enumerate('sml', 1)})
    for group, name in enumerate(FREQUENCIES):
        figures[f'AP{name}'] = _mean(precision[0][:, truth.frequencies == group])
    figures.update({f'AR{name}{limit}': _mean(recall[area]) for area, name in enumerate(('', *'sml'))})
    return figures


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if len(known) else -1.0
