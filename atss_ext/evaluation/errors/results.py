"""Detections of a COCO result file as columns, limited as the data set's evaluation limits them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.coco.result_file import Results, check_results
from atss_ext.evaluation.errors.truth import Truth

COCO_LIMIT = 100
"""Detections that pycocotools takes of an image and a category."""
LVIS_LIMIT = 300
"""Detections that lvis-api takes of an image."""


@dataclass(frozen=True)
class Detections:
    """N detections, in order of images, on each by falling score, equal scores as in the file.

    Attributes:
        image: the image row of each, [N].
        category: the category row of each, [N].
        boxes: xywh [N, 4], pixels.
        scores: [N].
        notes: sentences about what was left out.
    """

    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    notes: tuple[str, ...]


def read_detections(results: Results, truth: Truth, file: str) -> Detections:
    """Order the detections of a result file.

    Of COCO the best 100 of an image and category are taken, of LVIS the best 300 of an image.

    Args:
        results: entries with ``image_id``, ``category_id``, ``bbox`` and ``score``; a ``name``, as open-ended
            models write it, has to be that of the category.
        truth: what they are compared with.
        file: path of the result file, for messages.

    Raises:
        DataError: a detection cannot be scored, for the reasons of ``tools/evaluate.py``: a value is missing,
            the image or the category is not in the annotation file, or the name is not the category's.
    """
    names = dict(zip(truth.category_ids, truth.names, strict=True))
    image_rows, category_rows = truth.image_rows, truth.category_rows
    check_results(results, file, image_rows, names, truth.ann_file)
    image = np.array([image_rows[one['image_id']] for one in results], np.int64)
    category = np.array([category_rows[one['category_id']] for one in results], np.int64)
    scores = np.array([one['score'] for one in results], np.float64)
    boxes = np.array([one['bbox'] for one in results], np.float64).reshape(-1, 4)
    order = np.lexsort((-scores, image))
    if truth.federated:
        order = order[_rank(image[order]) < LVIS_LIMIT]
    else:
        # Stable: within an image and a category the order stays that of the scores.
        grouped = np.lexsort((category[order], image[order]))
        pairs = image[order] * len(truth.names) + category[order]
        order = order[np.sort(grouped[_rank(pairs[grouped]) < COCO_LIMIT])]
    columns = image[order], category[order], boxes[order], scores[order]
    return Detections(*columns, notes=_notes(len(results) - len(order), truth))


def _notes(limited: int, truth: Truth) -> tuple[str, ...]:
    if not limited:
        return ()
    limit = f'{LVIS_LIMIT} an image' if truth.federated else f'{COCO_LIMIT} an image and category'
    return (f'{limited} detections are beyond the best {limit}, and are left out',)


def _rank(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each entry within its run of equal numbers."""
    places = np.arange(len(groups))
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(starts, append=len(groups))
    ranks: NDArray[np.int64] = places - np.repeat(starts, lengths)
    return ranks
