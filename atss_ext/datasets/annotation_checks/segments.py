"""Checks of segmentations: polygons and run lengths, compressed or not.

Source of the formats: pycocotools' ``mask.py`` and ``maskApi.c`` (``rleFrString``).
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.annotation_checks.table import Finding, Table, found

_CHUNK = 20_000  # annotations whose numbers are in memory at once


def check_segmentations(table: Table) -> list[Finding]:
    """Check every segmentation of a file; one without any is fine."""
    segments = [annotation.get('segmentation') for annotation in table.annotations]
    kinds: dict[str, list[int]] = {'none': [], 'polygons': [], 'rle': [], 'other': []}
    for row, segment in enumerate(segments):
        kinds[_kind(segment)].append(row)
    ids = table.annotation_ids
    message = 'the segmentation is neither a list of polygons nor run lengths with size and counts'
    findings = found('segment-form', 'error', message, ids, kinds['other'])
    if len(kinds['none']) < len(segments):
        message = 'the annotation has no segmentation while others have one; masks cannot be trained on it'
        findings += found('segment-missing', 'warning', message, ids, kinds['none'])
    return findings + _check_polygons(table, kinds['polygons']) + _check_rles(table, kinds['rle'])


def rle_lengths(counts: str | bytes) -> NDArray[np.int64]:
    """Return the runs of compressed run lengths, int64 [R], background first.

    Six bits a character, the sixth for "goes on", low bits first, signed; from the fourth run on it is the
    difference to the run before the last.

    Raises:
        ValueError: the text ends within a number or has other characters.
    """
    codes = np.frombuffer(counts.encode('latin-1') if isinstance(counts, str) else counts, np.uint8)
    values = codes.astype(np.int64) - 48
    if ((values < 0) | (values > 63)).any():
        raise ValueError('a character that is no run length')
    ends = np.flatnonzero(values & 32 == 0)
    if not len(values):
        return np.zeros(0, np.int64)
    if not len(ends) or ends[-1] != len(values) - 1:
        raise ValueError('the text ends within a number')
    starts = np.concatenate([[0], ends[:-1] + 1])
    if int((ends - starts).max()) > 11:
        raise ValueError('a number of more than 60 bits')
    place = np.arange(len(values)) - np.repeat(starts, ends - starts + 1)
    runs = np.add.reduceat((values & 31) << (5 * place), starts)
    runs -= np.where(values[ends] & 16, np.int64(1) << (5 * (ends - starts + 1)), 0)
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs


def _kind(segment: Any) -> str:
    if segment is None or segment == []:
        return 'none'
    if isinstance(segment, list):
        return 'polygons' if all(isinstance(polygon, list) for polygon in segment) else 'other'
    if isinstance(segment, dict) and isinstance(segment.get('counts'), str | bytes | list):
        return 'rle'
    return 'other'


def _check_polygons(table: Table, rows: list[int]) -> list[Finding]:
    odd: list[int] = []
    short: list[int] = []
    for row in rows:
        lengths = [len(polygon) for polygon in table.annotations[row]['segmentation']]
        if any(length % 2 for length in lengths):
            odd.append(row)
        elif min(lengths) < 6:
            short.append(row)
    ids = table.annotation_ids
    findings = found('polygon-odd', 'error', 'a polygon has an odd number of coordinates', ids, odd)
    message = 'a polygon has less than three points (six numbers)'
    findings += found('polygon-short', 'error', message, ids, short)
    message = 'a polygon has a coordinate that is no finite number'
    return findings + found('polygon-number', 'error', message, ids, _without_numbers(table, rows))


def _without_numbers(table: Table, rows: list[int]) -> Iterator[int]:
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        if not _all_finite(chain.from_iterable(_polygons(table, row) for row in chunk)):
            yield from (row for row in chunk if not _all_finite(_polygons(table, row)))


def _polygons(table: Table, row: int) -> list[list[Any]]:
    return table.annotations[row]['segmentation']


def _all_finite(polygons: Iterable[list[Any]]) -> bool:
    flat = list(chain.from_iterable(polygons))
    if not set(map(type, flat)) <= {int, float}:
        return False
    try:
        return bool(np.isfinite(np.array(flat, np.float64)).all())
    except OverflowError:
        return False


def _check_rles(table: Table, rows: list[int]) -> list[Finding]:
    size: list[int] = []
    counts: list[int] = []
    for row in rows:
        rle = table.annotations[row]['segmentation']
        image = table.image_rows[row]
        width, height = table.sizes[image].tolist() if image >= 0 else (np.nan, np.nan)
        if rle.get('size') != [height, width] and image >= 0:
            size.append(row)
        elif image >= 0 and not _covers(rle['counts'], height * width):
            counts.append(row)
    ids = table.annotation_ids
    message = "the run lengths' size is not [height, width] of the image"
    findings = found('rle-size', 'error', message, ids, size)
    message = 'the run lengths are damaged: negative, or not as many pixels as the image'
    return findings + found('rle-counts', 'error', message, ids, counts)


def _covers(counts: str | bytes | list[Any], pixels: float) -> bool:
    try:
        if isinstance(counts, list):
            return all(type(run) is int and run >= 0 for run in counts) and sum(counts) == pixels
        runs = rle_lengths(counts)
    except (ValueError, UnicodeEncodeError):
        return False
    return bool((runs >= 0).all()) and int(runs.sum()) == pixels
