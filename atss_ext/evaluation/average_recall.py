"""Average recall of open-ended detections in memory: the objects found, whatever their names."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.evaluation.backend import Backend
from atss_ext.evaluation.boxes import xywh
from atss_ext.evaluation.coco import table
from atss_ext.evaluation.coco.figures import recall_figures
from atss_ext.vlsam.detections import Detections


class AverageRecall(NamedTuple):
    """Recall at so many detections an image.

    Attributes:
        mAR: mean over the IoU thresholds 0.5, 0.55, ..., 0.95, as COCO's AR.
        AR50: at IoU 0.5.
        AR75: at IoU 0.75.
    """

    mAR: float
    AR50: float
    AR75: float


class Truth(NamedTuple):
    """The M objects of one image.

    Attributes:
        boxes: xyxy [M, 4], pixels.
        masks: bool [M, H, W].
        names: M names.
    """

    boxes: NDArray[np.floating]
    masks: NDArray[np.bool_]
    names: Sequence[str]


def average_recall(
    truths: Sequence[Truth],
    found: Sequence[Detections],
    iou_type: str = 'bbox',
    names: bool = False,
    max_detections: int = 100,
    backend: Backend | None = None,
) -> AverageRecall:
    """Score detections of some images together.

    The paper reports this for CODA (VL-SAM, table 2: mAR, AR50, AR75), where no names are compared.

    Args:
        truths: an image each.
        found: as many, in the same order; of each image the best ``max_detections`` count.
        iou_type: 'bbox' or 'segm'.
        names: an object is found only by a detection of its own name; recall is then the mean over the names
            there are.
        max_detections: an image (and name, where names count).
        backend: see :func:`~atss_ext.evaluation.coco.score`.

    Returns:
        the recall; 0 where nothing is found.

    Raises:
        ValueError: the lengths differ, there is no object at all, or an unknown ``iou_type`` or back-end.
    """
    if len(truths) != len(found):
        raise ValueError(f'{len(truths)} images with objects need as many detections, but got {len(found)}.')
    if iou_type not in ('bbox', 'segm'):
        raise ValueError(f"iou_type must be 'bbox' or 'segm', but is {iou_type!r}.")
    known = sorted({name for truth in truths for name in truth.names})
    if not known:
        raise ValueError('there is no object in these images; recall needs one at least.')
    objects, results = _objects(truths, known), _results(found, known)
    if not names:
        objects, results = objects.unnamed(), results.unnamed()
    figures = recall_figures(objects, results, iou_type, [max_detections], backend)
    return AverageRecall(*(figures[f'{name}@{max_detections}'] for name in ('AR', 'AR50', 'AR75')))


def _objects(truths: Sequence[Truth], names: Sequence[str]) -> table.Truth:
    """All objects; the last category, of names that no object has, leaves the mean over names alone."""
    ids = {name: number for number, name in enumerate(names, 1)}
    masks = [rle.encode(np.asfortranarray(mask, dtype=np.uint8)) for truth in truths for mask in truth.masks]
    categories = [ids[name] for truth in truths for name in truth.names]
    return table.Truth(
        ann_file='',
        image_numbers={image: image + 1 for image in range(len(truths))},
        sizes=[(truth.masks.shape[1], truth.masks.shape[2]) for truth in truths],
        category_numbers={number: number for number in range(1, len(names) + 2)},
        names=[*names, 'no object'],
        images=np.repeat(np.arange(len(truths)) + 1, [len(truth.names) for truth in truths]),
        categories=np.array(categories, np.int64),
        boxes=np.concatenate([xywh(truth.boxes) for truth in truths]),
        areas=np.array([mask.sum() for truth in truths for mask in truth.masks], np.float64),
        crowds=np.zeros(len(categories), bool),
        segmentations=masks,
    )


def _results(found: Sequence[Detections], names: Sequence[str]) -> table.Found:
    ids = {name: number for number, name in enumerate(names, 1)}
    categories = [ids.get(name, len(names) + 1) for one in found for name in one.names]
    return table.Found(
        images=np.repeat(np.arange(len(found)) + 1, [len(one) for one in found]),
        categories=np.array(categories, np.int64),
        scores=np.concatenate([one.scores for one in found]).astype(np.float64),
        boxes=np.concatenate([xywh(one.boxes) for one in found]),
        masks=[mask for one in found for mask in one.run_lengths],
    )
