"""COCO's twelve figures and the recall of open-ended detections, from curves.

Sources: https://cocodataset.org/#detection-eval for the figures; VL-SAM (table 2: mAR, AR50, AR75) for the
recall, where names are not compared.
"""

from collections.abc import Sequence

import numpy as np

from atss_ext.evaluation.coco.backends import THRESHOLDS, Backend, score
from atss_ext.evaluation.coco.table import Found, Truth
from atss_ext.evaluation.coco_scores import mean_of


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
        'AP50': mean_of(precision[_at(0.5), :, :, 0, -1]),
        'AP75': mean_of(precision[_at(0.75), :, :, 0, -1]),
    }
    sizes = tuple(enumerate('sml', 1))
    figures |= {f'AP{name}': mean_of(precision[:, :, :, area, -1]) for area, name in sizes}
    figures |= {f'AR@{limit}': mean_of(recall[:, :, 0, place]) for place, limit in enumerate(limits)}
    figures |= {f'AR{name}@{limits[-1]}': mean_of(recall[:, :, area, -1]) for area, name in sizes}
    if classwise:
        figures |= {f'AP_{name}': mean_of(precision[:, :, k, 0, -1]) for k, name in enumerate(truth.names)}
    return figures


def agnostic_recall(
    truth: Truth,
    found: Found,
    iou_type: str = 'bbox',
    limits: Sequence[int] = (100,),
    backend: Backend | None = None,
) -> dict[str, float]:
    """Score which objects were found, whatever they are called.

    Args:
        truth: the objects, read with ``agnostic``; crowds are ignored as COCO does.
        found: the detections, all of category 1.
        iou_type: 'bbox' or 'segm'.
        limits: the best detections of an image, ascending.
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
        figures[f'AR50@{limit}'] = mean_of(recall[_at(0.5), :, place])
        figures[f'AR75@{limit}'] = mean_of(recall[_at(0.75), :, place])
    return figures


def _at(threshold: float) -> int:
    return int(np.flatnonzero(np.isclose(THRESHOLDS, threshold))[0])
