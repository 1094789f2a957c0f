"""Masks as COCO run lengths: their size changed without ever being a picture of the larger size."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle


def resize_run_length(run_length: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A mask at another size: each pixel takes the value of the old pixel its centre lies in.

    Args:
        run_length: a mask [h, w], as compressed COCO run lengths.
        size: (H, W).

    Returns:
        the mask [H, W], as compressed COCO run lengths; the same object where nothing changes.
    """
    height, width = size
    old_height, old_width = (int(side) for side in run_length['size'])
    if (old_height, old_width) == (height, width):
        return run_length
    # Run lengths go down the columns: the transposed mask [w, h] is contiguous.
    ends = _column_changes(rle.decode(run_length).T)
    # The first new row whose centre lies in old row y or below; H for y = h.
    first_row = np.searchsorted(_sources(height, old_height), np.arange(old_height + 1))
    starts = np.searchsorted(ends[0], np.arange(old_width + 1))
    columns = _sources(width, old_width)
    lengths = (starts[1:] - starts[:-1])[columns]
    # For new column X the changes of its old column, one after the other.
    shift = starts[columns] - (np.cumsum(lengths) - lengths)
    changes = np.repeat(shift, lengths) + np.arange(lengths.sum())
    places = np.repeat(np.arange(width) * height, lengths) + first_row[ends[1][changes]]
    # Two changes at one place are none: a run that ends where the next column's begins, or one that vanished.
    places, counts = np.unique(places, return_counts=True)
    places = places[counts % 2 == 1]
    return _compressed(places, size)


def _sources(length: int, old_length: int) -> NDArray[np.int64]:
    """The old index [length] that the centre of each new pixel lies in."""
    return (2 * np.arange(length) + 1) * old_length // (2 * length)


def _column_changes(columns: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(column, row) of every change of value down the columns [w, h], seen from 0 outside of them."""
    width, height = columns.shape
    changed = np.empty((width, height + 1), bool)
    changed[:, 0], changed[:, -1] = columns[:, 0], columns[:, -1]
    np.not_equal(columns[:, 1:], columns[:, :-1], out=changed[:, 1:-1])
    where = np.nonzero(changed)
    return where[0], where[1]


def _compressed(places: NDArray[np.int64], size: tuple[int, int]) -> dict[str, Any]:
    end = size[0] * size[1]
    bounds = np.concatenate([[0], places[places < end], [end]])
    return rle.frPyObjects({'size': list(size), 'counts': np.diff(bounds).astype(np.int64).tolist()}, *size)


def as_text(run_length: dict[str, Any]) -> dict[str, Any]:
    """COCO run lengths as JSON holds them: ``counts`` is a string."""
    counts = run_length['counts']
    text = counts.decode('ascii') if isinstance(counts, bytes) else str(counts)
    return {'size': [int(side) for side in run_length['size']], 'counts': text}


def from_text(run_length: dict[str, Any]) -> dict[str, Any]:
    """COCO run lengths as pycocotools makes them: ``counts`` is bytes."""
    return {'size': list(run_length['size']), 'counts': run_length['counts'].encode('ascii')}
