"""The confusion matrix of detection, with a row and a column for the background."""

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.errors.kinds import WRONG, Kind, Kinds, Outcome


def confusion_matrix(kinds: Kinds) -> NDArray[np.int64]:
    """Count true against detected categories.

    A correct detection counts on the diagonal, a confused one in the row of the object it lies on, every
    other error in the last row; an object that is neither found nor confused counts in the last column. So
    a column sums to the counted detections of its category.

    Returns:
        [K + 1, K + 1]; rows are true, columns detected categories, the last of each is the background.
    """
    matching = kinds.matching
    count = len(matching.truth.names)
    matrix = np.zeros((count + 1, count + 1), np.int64)
    detected = matching.detections.category
    on_object = np.isin(kinds.kind, (Kind.CORRECT, Kind.CONFUSED))
    true = matching.truth.category[kinds.target[on_object]]
    np.add.at(matrix, (true, detected[on_object]), 1)
    elsewhere = np.isin(kinds.kind, [kind for kind in WRONG if kind != Kind.CONFUSED])
    matrix[count, :count] = np.bincount(detected[elsewhere], minlength=count)
    lost = np.isin(kinds.outcome, (Outcome.LOCALISATION, Outcome.MISSED))
    matrix[:count, count] = np.bincount(matching.truth.category[lost], minlength=count)
    return matrix


def most_confused(matrix: NDArray[np.int64], limit: int) -> list[int]:
    """The rows of the categories that are confused most with others, in order of rows.

    Args:
        matrix: [K + 1, K + 1], of :func:`confusion_matrix`.
        limit: how many at most; ties go to those that occur more often.
    """
    inner = matrix[:-1, :-1]
    mixed = inner.sum(axis=0) + inner.sum(axis=1) - 2 * np.diag(inner)
    occurs = matrix[:-1].sum(axis=1) + matrix[:, :-1].sum(axis=0)
    worst = np.lexsort((-occurs, -mixed))[:limit]
    return sorted(worst.tolist())


def counted_cells(matrix: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """The cells that are not zero, (row, column, count), the largest first."""
    rows, columns = np.nonzero(matrix)
    counts = matrix[rows, columns]
    order = np.argsort(-counts, kind='stable')
    return list(zip(rows[order].tolist(), columns[order].tolist(), counts[order].tolist(), strict=True))
