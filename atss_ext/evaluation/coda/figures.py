"""CODA's official figures, from curves.

Sources: Li et al., *CODA: A Real-World Road Corner Case Dataset* (ECCV 2022) and
https://coda-dataset.github.io/benchmark.html for the base benchmark; the challenge of the workshop SSLAD at
ECCV 2022 (https://codalab.lisn.upsaclay.fr/competitions/6639) for CODA2022's.
"""

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.backend import Backend
from atss_ext.evaluation.coco.backends import Curves, score
from atss_ext.evaluation.coco.figures import at_threshold, mean_of
from atss_ext.evaluation.coco.table import Found
from atss_ext.evaluation.coda.truth import CodaTruth

LIMITS = (1, 10, 100)
"""Detections an image (and class, where names count)."""


def coda_figures(
    truth: CodaTruth, found: Found, iou_type: str = 'bbox', backend: Backend | None = None
) -> dict[str, float]:
    """Score all detections of a file's images together.

    The base benchmark has ``mAR`` (over IoU 0.5 to 0.95), ``AR50`` and ``AR75`` at 100 detections an image,
    and ``AR1`` and ``AR10`` at 1 and 10, each of CORNER (all corner cases, names do not count), COMMON (the
    mean over the common classes; detections an image and class) and NOVEL (objects of other classes, names do
    not count). CODA2022 has ``AP_common``, ``AP_agnostic``, ``AR_agnostic``, ``AR_agnostic_corner`` and
    their ``Sum``.

    Where names do not count, all detections compete for the places of an image: for NOVEL as well, whatever
    they are called.

    Args:
        truth: the file.
        found: detections with the file's numbers of common classes, and ``truth.other`` for other names; of
            equal scores the earlier one comes first.
        iou_type: 'bbox' or 'segm'.
        backend: see :func:`~atss_ext.evaluation.coco.score`.

    Returns:
        the figures, in [0, 1]: 0 where nothing was found, -1 where there is nothing to find (``Sum`` leaves
        that out). Files without names have no COMMON, NOVEL, ``AP_common`` and ``Sum``.
    """

    def unnamed(wanted: NDArray[np.bool_]) -> Curves:
        return score(truth.only(wanted).unnamed(), found.unnamed(), iou_type, LIMITS, backend)

    def common() -> Curves:
        named = found.only(found.categories < truth.other)
        return score(truth.only(truth.common), named, iou_type, LIMITS, backend)

    corner = unnamed(truth.corners)
    if truth.layout == 'base':
        splits = {'CORNER': corner}
        if truth.named:
            splits |= {'COMMON': common(), 'NOVEL': unnamed(~truth.common)}
        recalls = {split: _recalls(curves) for split, curves in splits.items()}
        return {f'{split}_{key}': value for split, found in recalls.items() for key, value in found.items()}
    agnostic = unnamed(np.ones_like(truth.corners))
    figures = {'AP_common': _precision(common())} if truth.named else {}
    figures['AP_agnostic'] = _precision(agnostic)
    figures['AR_agnostic'] = _recalls(agnostic)['mAR']
    figures['AR_agnostic_corner'] = _recalls(corner)['mAR']
    if truth.named:
        figures['Sum'] = sum(max(value, 0.0) for value in figures.values())
    return figures


def _recalls(curves: Curves) -> dict[str, float]:
    recall = curves.recall[:, :, 0]  # [T, K, D], all areas
    parts = {
        'mAR': recall[..., 2],
        'AR50': recall[at_threshold(0.5), :, 2],
        'AR75': recall[at_threshold(0.75), :, 2],
        'AR1': recall[..., 0],
        'AR10': recall[..., 1],
    }
    return {name: mean_of(part) for name, part in parts.items()}


def _precision(curves: Curves) -> float:
    return mean_of(curves.precision[..., 0, 2])
