"""Detections of a COCO result file as columns, limited as the data set's evaluation limits them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.errors.truth import Truth, boxes_of, numbers

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


def read_detections(results: Sequence[Mapping[str, Any]], truth: Truth, file: str) -> Detections:
    """Order the detections of a result file.

    Of COCO the best 100 of an image and category are taken, of LVIS the best 300 of an image. Detections of
    categories that the annotation file does not have are left out.

    Args:
        results: entries with ``image_id``, ``category_id``, ``bbox`` and ``score``.
        truth: what they are compared with.
        file: path of the result file, for messages.

    Raises:
        DataError: a key is missing, a value is no number, or an image is not in the annotation file.
    """
    ids = numbers(results, 'image_id', 'detection', file)
    categories = numbers(results, 'category_id', 'detection', file)
    scores = numbers(results, 'score', 'detection', file)
    boxes = boxes_of(results, 'detection', file)
    image, found = _rows(ids, [one['id'] for one in truth.images])
    if not found.all():
        first = results[int(np.argmin(found))]['image_id']
        raise DataError(
            f'{int((~found).sum())} detections of {file} are on images that {truth.ann_file} does not have '
            f'(first: image_id {first}); name the annotation file that they were made for'
        )
    _refuse_inverted(boxes, file)
    category, known = _rows(categories, truth.category_ids)
    order = np.lexsort((-scores, image))
    if truth.federated:  # lvis-api limits before it looks at categories
        order = order[_rank(image[order]) < LVIS_LIMIT]
    order = order[known[order]]
    if not truth.federated:
        # Stable: within an image and a category the order stays that of the scores.
        grouped = np.lexsort((category[order], image[order]))
        pairs = image[order] * len(truth.names) + category[order]
        order = order[np.sort(grouped[_rank(pairs[grouped]) < COCO_LIMIT])]
    columns = image[order], category[order], boxes[order], scores[order]
    return Detections(*columns, notes=tuple(_notes(len(results), len(order), known, truth)))


def _refuse_inverted(boxes: NDArray[np.float64], file: str) -> None:
    inverted = (boxes[:, 2:] < 0).any(axis=1)
    if inverted.any():
        place = int(np.argmax(inverted))
        box = ', '.join(f'{value:g}' for value in boxes[place])
        raise DataError(
            f'detection number {place} of {file} has the inverted box [{box}]; a box is [x, y, width, height]'
        )


def _notes(given: int, taken: int, known: NDArray[np.bool_], truth: Truth) -> list[str]:
    unknown = int((~known).sum())
    notes = []
    if unknown:
        notes.append(f'{unknown} detections are of categories that {truth.ann_file} does not have')
    limited = given - taken - unknown
    if limited > 0:
        limit = f'{LVIS_LIMIT} an image' if truth.federated else f'{COCO_LIMIT} an image and category'
        notes.append(f'{limited} detections are beyond the best {limit}, and are left out')
    return notes


def _rows(values: NDArray[np.float64], ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The place of each value in ascending ids, and whether it is there."""
    known = np.array(ids, np.float64)
    rows = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return rows, known[rows] == values


def _rank(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each entry within its run of equal numbers."""
    places = np.arange(len(groups))
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(starts, append=len(groups))
    ranks: NDArray[np.int64] = places - np.repeat(starts, lengths)
    return ranks
