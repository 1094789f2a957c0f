"""Kinds of errors by size of objects, and by how frequent their category is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.boxes import areas_of
from atss_ext.evaluation.errors.kinds import Kind, Kinds, Outcome
from atss_ext.evaluation.lvis.truth import FREQUENCIES

SIZES = ('small', 'medium', 'large')
LIMITS = (32.0**2, 96.0**2)
"""COCO's limits between the sizes, square pixels; an area equal to one counts to the larger size."""
LVIS_GROUPS = ('rare', 'common', 'frequent')
TERCILES = ('few objects', 'some objects', 'many objects')


@dataclass(frozen=True)
class Group:
    """Counts of one group.

    Attributes:
        name: of the group.
        objects: objects by :class:`Outcome`, [5].
        detections: detections by :class:`Kind`, [7].
        categories: how many categories are in it; None where it is no group of categories.
    """

    name: str
    objects: NDArray[np.int64]
    detections: NDArray[np.int64]
    categories: int | None = None


def by_size(kinds: Kinds) -> list[Group]:
    """Group objects by their area, and detections by the area of their box."""
    matching = kinds.matching
    areas = areas_of(matching.detections.boxes)
    return _groups(kinds, SIZES, _size(matching.truth.areas), _size(areas), categories=None)


def by_frequency(kinds: Kinds) -> list[Group]:
    """Group by the category's frequency: LVIS's, otherwise terciles of the counts of objects."""
    truth = kinds.matching.truth
    names, group = frequency_groups(kinds)
    sizes = np.bincount(group[group >= 0], minlength=len(names))
    return _groups(
        kinds, names, group[truth.category], group[kinds.matching.detections.category], categories=sizes
    )


def frequency_groups(kinds: Kinds) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names of the three groups, and the group of each category, [K].

    LVIS's letters count objects of its training set. In other files the categories that have objects are
    put in order of their number and cut into thirds; those without objects join the first.
    """
    truth = kinds.matching.truth
    if truth.frequencies is not None:
        rows = [FREQUENCIES.index(letter) for letter in truth.frequencies]
        return LVIS_GROUPS, np.array(rows, np.int64)
    counts = np.bincount(truth.category[~truth.ignore], minlength=len(truth.names))
    group = np.zeros(len(counts), np.int64)
    there = np.flatnonzero(counts)
    order = there[np.argsort(counts[there], kind='stable')]
    group[order] = np.arange(len(order)) * len(TERCILES) // max(len(order), 1)
    return TERCILES, group


def _size(areas: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.searchsorted(LIMITS, areas, side='right')


def _groups(
    kinds: Kinds,
    names: Sequence[str],
    of_objects: NDArray[np.int64],
    of_detections: NDArray[np.int64],
    categories: NDArray[np.int64] | None,
) -> list[Group]:
    objects = cross_counts(of_objects, kinds.outcome, len(names), len(Outcome))
    detections = cross_counts(of_detections, kinds.kind, len(names), len(Kind))
    sizes = [None] * len(names) if categories is None else categories.tolist()
    return [
        Group(name, objects[row], detections[row], size)
        for row, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]


def cross_counts(
    rows: NDArray[np.int64], columns: NDArray[np.int64], height: int, width: int
) -> NDArray[np.int64]:
    """How often each pair (row, column) occurs, [height, width]; negative columns are passed over."""
    there = columns >= 0
    flat = np.bincount(rows[there] * width + columns[there], minlength=height * width)
    return flat.reshape(height, width)
