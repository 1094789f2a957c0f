"""Objects painted into pixels: translucent masks with their outlines, boxes and names."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atss_ext.visualization.detections import name_colour
from atss_ext.visualization.letters import font_file, printable
from atss_ext.visualization.page import check_image

MaskOf = Callable[[int], NDArray[np.bool_]]
Colour = tuple[int, int, int]

_STRENGTH = 0.42  # of a mask's colour over the image
_MARGIN = 3


def overlay_frame(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    names: Sequence[str],
    scores: NDArray[np.floating],
    mask: MaskOf | None = None,
    *,
    threshold: float = 0.0,
    max_objects: int = 100,
    colours: Mapping[str, Colour] | None = None,
    show_boxes: bool = True,
) -> NDArray[np.uint8]:
    """Paint objects into a copy of an image at its own size: fast enough for the frames of a video.

    Args:
        image: RGB uint8 [H,W,3].
        boxes: xyxy [D,4], pixels of the image.
        names: D names; a name has the same colour in every frame.
        scores: [D].
        mask: gives object i's mask, bool [H,W]; one is asked for at a time.
        threshold: objects of a lower score are not shown.
        max_objects: the best are shown.
        colours: RGB by name; others share those of :data:`page.DISTINCT`.
        show_boxes: draw the boxes, not only the masks.

    Returns:
        RGB uint8 [H,W,3].

    Raises:
        ValueError: an image that is not RGB uint8, or boxes, names and scores that are not equally many.
    """
    check_image(image)
    check_objects(boxes, names, scores)
    canvas = np.array(image, order='C')
    boxes = np.asarray(boxes, np.float64)
    shown = best_objects(scores, threshold, max_objects)
    tints = [name_colour(name, colours or {}) for name in names]
    line = max(1, round(max(canvas.shape[:2]) / 640))
    if mask is not None:
        for index in large_first(boxes, shown):
            paint_mask(canvas, mask(index), tints[index], line)
    for index in large_first(boxes, shown) if show_boxes else ():
        (x1, y1), (x2, y2) = np.rint(np.clip(boxes[index].reshape(2, 2), -1e6, 1e6)).astype(int).tolist()
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), tints[index], line)
    letters = int(np.clip(max(canvas.shape[:2]) / 64, 11, 40))
    taken: list[tuple[int, int, int, int]] = []
    for index in shown:
        words = f'{printable(names[index])} {scores[index]:.2f}'
        _put_label(canvas, boxes[index], _label(words, tints[index], letters), taken)
    return canvas


def check_objects(boxes: NDArray[np.floating], names: Sequence[str], scores: NDArray[np.floating]) -> None:
    """Refuse what does not describe the same objects.

    Raises:
        ValueError: with the offending numbers.
    """
    if np.shape(boxes) != (len(names), 4) or np.shape(scores) != (len(names),):
        raise ValueError(
            'boxes, names and scores must be [D,4], D and [D], but are '
            f'{list(np.shape(boxes))}, {len(names)} and {list(np.shape(scores))}.'
        )


def best_objects(scores: NDArray[np.floating], threshold: float, count: int) -> list[int]:
    """The ``count`` objects of the highest scores, none below the threshold, best first."""
    order = np.argsort(-np.asarray(scores), kind='stable').tolist()
    return [index for index in order if scores[index] >= threshold][:count]


def large_first(boxes: NDArray[np.floating], shown: Sequence[int]) -> list[int]:
    """The order of painting: small objects lie on large ones."""
    areas = [float(np.prod(boxes[index][2:] - boxes[index][:2])) for index in shown]
    return [shown[place] for place in np.argsort(-np.array(areas), kind='stable').tolist()]


def paint_mask(canvas: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour, line: int = 1) -> None:
    """Tint, in place, the part of an RGB canvas [H,W,3] a mask [H,W] covers, and outline it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    part = np.ascontiguousarray(mask[top:bottom, left:right], np.uint8)
    patch = canvas[top:bottom, left:right]
    flat = np.full_like(patch, colour)
    tinted = np.asarray(cv2.addWeighted(patch, 1 - _STRENGTH, flat, _STRENGTH, 0), np.uint8)
    np.copyto(patch, tinted, where=part[..., None].astype(bool))
    outlines, _ = cv2.findContours(
        part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(int(left), int(top))
    )
    cv2.drawContours(canvas, outlines, -1, (0, 0, 0), line + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, outlines, -1, colour, line, cv2.LINE_AA)


def heat_over(image: NDArray[np.uint8], attention: NDArray[np.floating]) -> NDArray[np.uint8]:
    """An object's attention over the faded image, from its least (clear) to its greatest value.

    Args:
        image: RGB uint8 [H,W,3].
        attention: [R,C], over the whole image; a constant one shows nothing.

    Returns:
        RGB uint8 [H,W,3].
    """
    height, width = image.shape[:2]
    grey = 60 + image.mean(axis=2, keepdims=True) * 0.5
    span = float(attention.max() - attention.min())
    level = (attention - attention.min()) / span if span > 0 else np.zeros_like(attention)
    level = np.asarray(cv2.resize(level.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))
    heat = matplotlib.colormaps['inferno'](level)[..., :3] * 255
    cover = 0.85 * np.sqrt(level.clip(0, 1))[..., None]
    return (grey * (1 - cover) + heat * cover).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@functools.lru_cache(maxsize=2048)
def _label(words: str, colour: Colour, size: int) -> NDArray[np.uint8]:
    """Words on their colour, RGB [h,w,3]."""
    font = _font(font_file(words), size)
    left, top, right, bottom = font.getbbox(words)
    rise, fall = font.getmetrics()
    height = max(rise + fall, int(bottom - min(top, 0)))
    patch = Image.new('RGB', (int(right - min(left, 0)) + 2 * _MARGIN, height), colour)
    ImageDraw.Draw(patch).text((_MARGIN - min(left, 0), -min(top, 0)), words, ink_on(colour), font)
    return np.array(patch)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is read more easily on a colour."""
    bright = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140
    return (0, 0, 0) if bright else (255, 255, 255)


def _put_label(
    canvas: NDArray[np.uint8],
    box: NDArray[np.floating],
    label: NDArray[np.uint8],
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Paste a label at the first place by its box that is inside of the canvas and free; else nowhere."""
    height, width = label.shape[:2]
    for x, y in _spots(box, width, height):
        right, bottom = x + width, y + height
        inside = x >= 0 and y >= 0 and right <= canvas.shape[1] and bottom <= canvas.shape[0]
        if inside and not any(x < x2 and right > x1 and y < y2 and bottom > y1 for x1, y1, x2, y2 in taken):
            canvas[y:bottom, x:right] = label
            taken.append((x, y, right, bottom))
            return


def _spots(box: NDArray[np.floating], width: int, height: int) -> Iterator[tuple[int, int]]:
    x1, y1, x2, y2 = (round(float(value)) for value in np.clip(box, -1e6, 1e6))
    yield from ((x1, y1 - height), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2))
    yield from ((x1, y1), (x2 - width, y1), (x1, y2 - height), (x2 - width, y2 - height))
    yield from ((x2, (y1 + y2 - height) // 2), (x1 - width, (y1 + y2 - height) // 2))
    yield (x1 + x2 - width) // 2, (y1 + y2 - height) // 2
