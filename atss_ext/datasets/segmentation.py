"""What is wrong with a segmentation, polygons or run lengths of either kind, against the size of its image.

pycocotools and hotcoco trust what they are given: a polygon a million images wide ends the process, run
lengths beyond the image never come to an end, and those of another size overlap with nothing. So whoever
hands them a segmentation asks here before.

Source of the formats: pycocotools' ``mask.py`` and ``maskApi.c`` (``rleFrString``).
"""

import reprlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from numbers import Integral
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
"""Height and width of an image, pixels."""

FAR = 10
"""How many times an image's longer side a polygon may reach; rasterising takes memory by its outline."""

MAX_SIDE = 2**31 // (5 * FAR) - 1
"""The longest side of an image whose masks are drawn, pixels: pycocotools has fifths of them in 32 bits."""

MAX_OUTLINE = 2**22
"""The longest outline of a mask, pixels: it is drawn in 1.4 s and 200 MB, both of which grow with it."""

_ANY = 1e15
"""The limit of polygons whose image has no size, pixels."""

_INF = float('inf')

_CHUNK = 2000
"""Segmentations that are decoded together; some megabytes."""

_LONGEST = 7
"""Characters of one run: 35 bits. Sums of these fit into 64 bits for any text that fits into memory."""

_CORRECT = 'correct or remove it'

Code = Literal[
    'segment-form',
    'polygon-odd',
    'polygon-short',
    'polygon-number',
    'polygon-far',
    'polygon-long',
    'rle-size',
    'rle-counts',
]


class Fault(NamedTuple):
    """What is wrong with a segmentation.

    Attributes:
        code: a short name that does not change with the wording.
        text: the rest of a sentence that says whose it is: 'has ...; way out'.
    """

    code: Code
    text: str


def segmentation_fault(segmentation: Any, size: Size | None) -> Fault | None:
    """Look for the first fault of a segmentation.

    Args:
        segmentation: whatever stands there: a list of polygons ``[x1, y1, x2, y2, ...]``, or run lengths with
            ``size`` and ``counts``.
        size: height and width of its image, pixels; None where nobody knows them, so that run lengths are
            compared with the size they state.

    Returns:
        None for one that may be rasterised.
    """
    if isinstance(segmentation, dict):
        return _rle_fault(segmentation, size)
    if isinstance(segmentation, list) and segmentation and all(isinstance(one, list) for one in segmentation):
        return _polygon_fault(segmentation, size)
    shown = reprlib.repr(segmentation)
    return Fault(
        'segment-form',
        f'has the segmentation {shown}; write a list of polygons, or run lengths as pycocotools',
    )


def segmentation_faults(
    segmentations: Iterable[Any], sizes: Iterable[Size | None]
) -> Iterator[tuple[int, Fault]]:
    """Look for the faults of many segmentations, see :func:`segmentation_fault`; faster than one by one.

    Returns:
        the place of each that has a fault, ascending, and the fault.
    """
    pairs = enumerate(zip(segmentations, sizes, strict=True))
    while chunk := list(islice(pairs, _CHUNK)):
        texts = [_text(segmentation, size) for _, (segmentation, size) in chunk]
        pixels = [size[0] * size[1] for _, (_, size) in chunk if size is not None]
        if None in texts or not _are_sound([one for one in texts if one], pixels):
            for place, (segmentation, size) in chunk:
                fault = segmentation_fault(segmentation, size)
                if fault is not None:
                    yield place, fault


def rle_lengths(counts: str | bytes) -> NDArray[np.int64]:
    """Return the runs of compressed run lengths, int64 [R], background first.

    Six bits a character, the sixth for "goes on", low bits first, signed; from the fourth run on it is the
    difference to the run before the last.

    Raises:
        ValueError: the text ends within a number or has other characters.
    """
    text = counts.encode('latin-1') if isinstance(counts, str) else counts
    return _lengths([text])[0] if text else np.zeros(0, np.int64)


def _lengths(texts: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The runs of texts that are not empty, one behind the other, and the place of each text's first run."""
    codes = np.frombuffer(b''.join(texts), np.uint8)
    if codes.min() < 48 or codes.max() > 111:
        raise ValueError('a character that is no run length')
    values = codes - np.uint8(48)
    lasts = np.cumsum([len(text) for text in texts]) - 1
    if (values[lasts] > 31).any():
        raise ValueError('the text ends within a number')
    ends = np.flatnonzero(values < 32)
    starts = np.append(0, ends[:-1] + 1)
    digits = ends - starts + 1
    most = int(digits.max())
    if most > _LONGEST:
        raise ValueError(f'a number of more than {5 * _LONGEST} bits')
    # From the last digit down, which has the sign: 16 to 31 are -16 to -1.
    runs = (values[ends].astype(np.int64) ^ 16) - 16
    for back in range(1, most):
        longer = np.flatnonzero(digits > back)
        runs[longer] = (runs[longer] << 5) | (values[ends[longer] - back] & 31)
    firsts = np.append(0, np.searchsorted(ends, lasts[:-1]) + 1)
    # Each run but the first three of a text says its difference to the run before the last.
    places = np.arange(len(runs)) - np.repeat(firsts, np.diff(firsts, append=len(runs)))
    for head in (1, 2):
        numbers = np.flatnonzero((places % 2 == head % 2) & (places > 0))
        sums = np.cumsum(runs[numbers])
        own = np.flatnonzero(places[numbers] == head)
        before = np.repeat(sums[own] - runs[numbers[own]], np.diff(own, append=len(numbers)))
        runs[numbers] = sums - before
    return runs, firsts


def _text(segmentation: Any, size: Size | None) -> str | bytes | None:
    """Compressed run lengths that state the size of their image; None for all else, and for empty ones."""
    if size is None or not isinstance(segmentation, dict) or segmentation.get('size') != [*size]:
        return None
    counts = segmentation.get('counts')
    return counts if isinstance(counts, str | bytes) and counts else None


def _are_sound(counts: Sequence[str | bytes], pixels: Sequence[int]) -> bool:
    """Whether compressed run lengths, none empty, are as many pixels each."""
    try:
        runs, firsts = _lengths([one.encode('latin-1') if isinstance(one, str) else one for one in counts])
    except ValueError:
        return False
    return bool((runs >= 0).all() and (np.add.reduceat(runs, firsts) == pixels).all())


def _polygon_fault(polygons: list[list[Any]], size: Size | None) -> Fault | None:
    shown = reprlib.repr
    for one in polygons:
        if len(one) % 2:
            return Fault('polygon-odd', f'has the polygon {shown(one)} of {len(one)} numbers; {_CORRECT}')
        if len(one) < 6:
            return Fault(
                'polygon-short', f'has the polygon {shown(one)}, which is less than three points; {_CORRECT}'
            )
    flat = polygons[0] if len(polygons) == 1 else list(chain.from_iterable(polygons))
    limit = FAR * min(max(size), MAX_SIDE) if size is not None else _ANY
    # Plain comparisons: an array of each of a million polygons would take longer than all the rest. A NaN
    # that does not come first is neither the lowest nor the highest, but shows in the sum.
    if set(map(type, flat)) <= {int, float}:
        low, high = min(flat), max(flat)
        if -limit <= low and high <= limit and sum(flat) == sum(flat):
            # No edge is longer than the range of all numbers: few polygons need their outline measured.
            short = size is None or len(flat) // 2 * (high - low) <= MAX_OUTLINE
            return None if short else _outline_fault(polygons)
    odd = [value for value in flat if type(value) not in (int, float) or value != value or abs(value) == _INF]
    if odd:
        return Fault(
            'polygon-number', f'has a polygon with {shown(odd[0])}, which is no finite number; {_CORRECT}'
        )
    reason = 'no image is as large'
    if size is not None and max(size) <= MAX_SIDE:
        reason = f'its image is {size[0]} high and {size[1]} wide'
    return Fault(
        'polygon-far',
        f'has a polygon with {shown(max(flat, key=abs))}, but {reason}; write pixels of the image',
    )


def _outline_fault(polygons: list[list[Any]]) -> Fault | None:
    """Whether the edges of finite polygons are longer together than can be drawn."""
    total = 0.0
    for one in polygons:
        points = np.array(one, np.float64).reshape(-1, 2)
        # As pycocotools draws: as many steps as the longer of width and height.
        total += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
    if total <= MAX_OUTLINE:
        return None
    text = f'has polygons with outlines of {total:.0f} pixels, of which {MAX_OUTLINE} are drawn at most'
    return Fault('polygon-long', f'{text}; write simpler ones, or run lengths')


def _rle_fault(segmentation: dict[str, Any], size: Size | None) -> Fault | None:
    stated, counts = segmentation.get('size'), segmentation.get('counts')
    if not isinstance(counts, str | bytes | list):
        return Fault(
            'segment-form', 'has a segmentation without size and counts; write run lengths as pycocotools'
        )
    whole = isinstance(stated, list | tuple) and len(stated) == 2 and all(map(_is_length, stated))
    if not whole or (size is not None and tuple(stated or ()) != tuple(size)):
        wanted = 'which must be two whole numbers'
        if size is not None:
            wanted = f'but its image is {size[0]} high and {size[1]} wide'
        shown = reprlib.repr(stated)
        return Fault(
            'rle-size', f'has run lengths of size {shown}, {wanted}; write the mask of the whole image'
        )
    height, width = stated or (0, 0)
    damage = _damage(counts, int(height) * int(width))
    return None if damage is None else Fault('rle-counts', f'has run lengths {damage}; write the mask again')


def _is_length(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


def _damage(counts: str | bytes | list[Any], pixels: int) -> str | None:
    """What is wrong with runs that should be as many pixels."""
    if isinstance(counts, list):
        odd = [run for run in counts if not isinstance(run, Integral) or isinstance(run, bool)]
        if odd:
            return f'with {reprlib.repr(odd[0])}, which is no whole number'
        lowest, total = min(counts, default=0), sum(counts)
    else:
        try:
            runs = rle_lengths(counts)
        except (ValueError, UnicodeEncodeError) as error:
            return f'{reprlib.repr(counts)}, which cannot be read ({error})'
        lowest, total = int(runs.min(initial=0)), int(runs.sum())
    if lowest < 0:
        return f'with {lowest}, which is negative'
    return None if total == pixels else f'of {reprlib.repr(total)} pixels, but its image has {pixels}'
