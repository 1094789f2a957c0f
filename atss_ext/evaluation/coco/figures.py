"""COCO's twelve figures and the recall of open-ended detections, from curves.

Sources: https://cocodataset.org/#detection-eval for the figures; VL-SAM (table 2: mAR, AR50, AR75) for the
recall, where names are not compared.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.backend import Backend
from atss_ext.evaluation.coco.backends import score
from atss_ext.evaluation.coco.table import Found, Truth
from atss_ext.evaluation.grid import THRESHOLDS


def coco_figures(
    truth: Truth,
    found: Found,
    iou_type: str = 'bbox',
    max_dets: Sequence[int] = (1, 10, 100),
    backend: Backend | None = None,
    classwise: bool = False,
) -> dict[str, float]:
    """Score detections as COCO does.

    Args:
        truth: the objects.
        found: the detections.
        iou_type: 'bbox' or 'segm'.
        max_dets: limits of detections an image and category; precision is taken at the highest.
        backend: see :func:`~atss_ext.evaluation.coco.score`.
        classwise: add ``AP_<name>`` of every category.

    Returns:
        AP, AP50, AP75, APs, APm, APl (objects up to 32 and 96 pixels squared, and larger), AR@1, AR@10,
        AR@100, ARs@100, ARm@100, ARl@100; in [0, 1]; 0 where nothing was found, -1 where there is no such
        object.
    """
    limits = sorted(max_dets)
    precision, recall = score(truth, found, iou_type, limits, backend)
    figures = {
        'AP': mean_of(precision[:, :, :, 0, -1]),
        'AP50': mean_of(precision[at_threshold(0.5), :, :, 0, -1]),
        'AP75': mean_of(precision[at_threshold(0.75), :, :, 0, -1]),
    }
    sizes = tuple(enumerate('sml', 1))
    figures |= {f'AP{name}': mean_of(precision[:, :, :, area, -1]) for area, name in sizes}
    figures |= {f'AR@{limit}': mean_of(recall[:, :, 0, place]) for place, limit in enumerate(limits)}
    figures |= {f'AR{name}@{limits[-1]}': mean_of(recall[:, :, area, -1]) for area, name in sizes}
    if classwise:
        figures |= {f'AP_{name}': mean_of(precision[:, :, k, 0, -1]) for k, name in enumerate(truth.names)}
    return figures


def recall_figures(
    truth: Truth,
    found: Found,
    iou_type: str = 'bbox',
    limits: Sequence[int] = (100,),
    backend: Backend | None = None,
) -> dict[str, float]:
    """Score which objects were found, alone.

    Where names do not count, objects and detections are of one category (:meth:`Truth.unnamed`,
    :meth:`Found.unnamed`); else recall is the mean over the categories that have objects.

    Args:
        truth: the objects; crowds are ignored as COCO does.
        found: the detections.
        iou_type: 'bbox' or 'segm'.
        limits: the best detections of an image and category.
        backend: see :func:`~atss_ext.evaluation.coco.score`.

    Returns:
        ``AR@100``, the mean over the IoU thresholds 0.5 to 0.95, ``AR50@100`` and ``AR75@100`` of each limit;
        in [0, 1]; 0 where nothing was found, -1 where there is nothing to find.
    """
    limits = sorted(limits)
    recall = score(truth, found, iou_type, limits, backend).recall[:, :, 0]  # [T, K, D]
    figures = {}
    for place, limit in enumerate(limits):
        figures[f'AR@{limit}'] = mean_of(recall[..., place])
        figures[f'AR50@{limit}'] = mean_of(recall[at_threshold(0.5), :, place])
        figures[f'AR75@{limit}'] = mean_of(recall[at_threshold(0.75), :, place])
    return figures


def mean_of(part: NDArray[np.floating]) -> float:
    """Mean over what there are objects for; -1, as pycocotools says it, if there are none."""
    there = part[part > -1]
    return float(there.mean()) if there.size else -1.0


def at_threshold(threshold: float) -> int:
    """The place of an IoU threshold in the curves."""
    return int(np.flatnonzero(np.isclose(THRESHOLDS, threshold))[0])
