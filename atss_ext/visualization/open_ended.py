"""What an open-ended detector found in one image: masks, boxes, names, scores and, if wanted, attention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from atss_ext.visualization.detections import name_colour
from atss_ext.visualization.labels import draw_boxes
from atss_ext.visualization.letters import fonts, literal, printable
from atss_ext.visualization.overlay import (
    Colour,
    MaskOf,
    best_objects,
    check_objects,
    heat_over,
    large_first,
    overlay_frame,
    paint_mask,
)
from atss_ext.visualization.page import FAINT, Page, Panel, check_image, halo, unit

__all__ = ['OpenEndedPage', 'draw_open_ended', 'overlay_frame']

_GAP, _HEADER, _ROW = 16, 64, 19
_ENTRY = 236  # pixels, width of an entry of the list
_THUMB, _CAPTION = 184, 22
_NARROW = 480  # pixels; a smaller image is enlarged to this longest side
_FEW = 12  # objects that are named in the picture; more have a number there and a name in the list


class OpenEndedPage(Page):
    """A page with one image and what was found in it.

    Attributes:
        picture: where the image lies; its scale is page pixels per pixel of the detections.
        shown: the objects shown, best first.
        maps: where the attention maps of the first of them lie.
    """

    picture: Panel
    shown: list[int]
    maps: list[Panel]


def draw_open_ended(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    names: Sequence[str],
    scores: NDArray[np.floating],
    mask: MaskOf | None = None,
    *,
    size: tuple[int, int] | None = None,
    title: str = '',
    threshold: float = 0.0,
    max_objects: int = 60,
    colours: Mapping[str, Colour] | None = None,
    show_boxes: bool = True,
    maps: NDArray[np.floating] | None = None,
    points: Sequence[NDArray[np.floating]] | None = None,
    max_maps: int = 12,
    longest: int = 1000,
) -> OpenEndedPage:
    """Draw a page: the image with its objects, the list of them, and their attention maps.

    Up to 12 objects are named in the picture where there is room; of more each has the number there that it
    has in the list. One object's mask is in memory at a time.

    Args:
        image: RGB uint8 [h,w,3]; may be a reduced copy of what the detections are of.
        boxes: xyxy [D,4], pixels of an image of ``size``.
        names: D names, in any language; letters no installed font has become squares.
        scores: [D].
        mask: gives object i's mask, bool, of any size that covers the whole image.
        size: (H, W) of the image that the boxes are of; None: that of ``image``.
        title: printed above, such as the file's name.
        threshold: objects of a lower score are not shown.
        max_objects: the best are shown.
        colours: RGB by name; others share those of :data:`page.DISTINCT`.
        show_boxes: draw the boxes, not only the masks.
        maps: [D,R,C], each object's attention over the whole image.
        points: D arrays [P,3] of prompts: x, y in pixels of an image of ``size``, and 1 on the object or 0
            beside it; others are padding.
        max_maps: the maps of the best objects are shown.
        longest: side of the picture on the page, pixels; an image that is smaller may stay smaller.

    Returns:
        the page; ``page.save(path)`` writes it.

    Raises:
        ValueError: an image that is not RGB uint8, or arguments that do not describe the same objects.
    """
    check_image(image)
    check_objects(boxes, names, scores)
    for words, values in (('maps', maps), ('points', points)):
        if values is not None and len(values) != len(names):
            raise ValueError(f'{words} must be one an object, {len(names)}, but are {len(values)}.')
    height, width = size or image.shape[:2]
    scale = min(longest, max(_NARROW, 2 * max(image.shape[:2]))) / max(height, width)
    show = _Show(
        picture=_resized(image, max(1, round(width * scale)), max(1, round(height * scale))),
        scale=scale,
        shown=best_objects(scores, threshold, max_objects),
        boxes=np.asarray(boxes, np.float64) * scale,
        names=names,
        scores=scores,
        tints=[name_colour(name, colours or {}) for name in names],
    )
    with_maps = [] if maps is None else show.shown[:max_maps]
    page, list_top, maps_top = _new_page(show, len(with_maps))
    # Fonts are chosen where a text is made, not where it is drawn.
    with matplotlib.rc_context({'font.family': [font.family for font in fonts()]}):
        _draw_header(page, show, title, threshold)
        _draw_picture(page, show, mask, show_boxes)
        _draw_list(page, show, list_top)
        page.maps = _map_panels(page, show, len(with_maps), maps_top)
        for place, (panel, index) in enumerate(zip(page.maps, with_maps, strict=True)):
            page.text(panel.left, panel.top - 6, show.words(place, 26), 8.5)
            _draw_map(page, show, panel, np.asarray(maps)[index], None if points is None else points[index])
    return page


@dataclass(frozen=True)
class _Show:
    """What is drawn; boxes are in pixels of the picture."""

    picture: NDArray[np.uint8]
    scale: float
    shown: list[int]
    boxes: NDArray[np.float64]
    names: Sequence[str]
    scores: NDArray[np.floating]
    tints: list[Colour]

    def words(self, place: int, limit: int) -> str:
        """The name of the object shown in a place of the order, behind its number where it has one."""
        name = literal(printable(self.names[self.shown[place]], limit))
        return f'{place + 1}  {name}' if len(self.shown) > _FEW else name


def _resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    smaller = width < image.shape[1]
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)


def _new_page(show: _Show, maps: int) -> tuple[OpenEndedPage, int, int]:
    """The page, where its list begins, and where its maps do."""
    height, width = show.picture.shape[:2]
    page_width = max(width, 2 * _ENTRY) + 2 * _GAP
    rows = -(-len(show.shown) // max(1, (page_width - 2 * _GAP) // _ENTRY))
    thumbs = -(-maps // _thumbs_a_row(page_width))
    list_top = _HEADER + height + _GAP
    maps_top = list_top + rows * _ROW + _GAP
    deep = maps_top + thumbs * (_thumb_height(show) + _CAPTION + _GAP)
    page = OpenEndedPage(page_width, deep)
    page.picture, page.shown = Panel(_GAP, _HEADER, show.scale), show.shown
    return page, list_top, maps_top


def _thumbs_a_row(page_width: int) -> int:
    return max(1, (page_width - _GAP) // (_THUMB + _GAP))


def _thumb_width(show: _Show) -> int:
    """Narrower where the image is upright, so that no small picture is higher than 1.5 times its place."""
    height, width = show.picture.shape[:2]
    return max(1, min(_THUMB, round(1.5 * _THUMB * width / height)))


def _thumb_height(show: _Show) -> int:
    height, width = show.picture.shape[:2]
    return max(1, round(_thumb_width(show) * height / width))


def _draw_header(page: Page, show: _Show, title: str, threshold: float) -> None:
    letters = (page.width - 2 * _GAP) // 12
    page.text(_GAP, 30, literal(printable(title, letters)) or 'Found objects', size=15, weight='bold')
    count, total = len(show.shown), len(show.names)
    words = f'{count} object{"" if count == 1 else "s"}' if count else 'No object'
    if total > count:
        above = int((np.asarray(show.scores) >= threshold).sum())
        parts = [f'{above - count} more above it'] if above > count else []
        parts += [f'{total - above} below'] if total > above else []
        words += f' with a score of at least {threshold:g}; {" and ".join(parts)}'
    page.text(_GAP, 51, words + '.', 9.5, FAINT)


def _draw_picture(page: OpenEndedPage, show: _Show, mask: MaskOf | None, show_boxes: bool) -> None:
    canvas = show.picture.copy()
    height, width = canvas.shape[:2]
    for index in large_first(show.boxes, show.shown) if mask else ():
        paint_mask(canvas, _shrunk(mask(index), width, height), show.tints[index])
    axes = page.image(canvas, Panel(_GAP, _HEADER, 1.0))
    few = len(show.shown) <= _FEW
    labels = [
        f'{show.words(place, 24)} {show.scores[index]:.2f}' if few else str(place + 1)
        for place, index in enumerate(show.shown)
    ]
    boxes = show.boxes[show.shown].reshape(-1, 4)
    tints = [show.tints[index] for index in show.shown]
    draw_boxes(axes, boxes, labels, tints)
    for outline in axes.patches:
        outline.set_visible(show_boxes)


def _shrunk(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    """A mask [H,W] at the size of the picture; where much smaller, thin parts stay visible."""
    smaller = mask.shape[1] > width
    cover = cv2.resize(
        np.ascontiguousarray(mask, np.uint8) * np.uint8(255),
        (width, height),
        interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
    )
    return np.asarray(cover) >= (32 if smaller else 128)


def _draw_list(page: Page, show: _Show, top: int) -> None:
    columns = max(1, (page.width - 2 * _GAP) // _ENTRY)
    rows = -(-len(show.shown) // columns)
    for place, index in enumerate(show.shown):
        column, row = divmod(place, rows)
        left, y = _GAP + column * _ENTRY, top + row * _ROW + 13
        page.text(left, y, '\u25a0', 12, unit(show.tints[index]))
        page.text(left + 19, y, show.words(place, 24), 9)
        page.text(left + _ENTRY - 20, y, f'{show.scores[index]:.2f}', 9, FAINT, ha='right')


def _map_panels(page: Page, show: _Show, count: int, top: int) -> list[Panel]:
    """Where the small pictures lie, row by row, each below its caption."""
    a_row, height = _thumbs_a_row(page.width), _thumb_height(show)
    scale = _thumb_width(show) / show.picture.shape[1] * show.scale
    return [
        Panel(
            _GAP + place % a_row * (_THUMB + _GAP),
            top + place // a_row * (height + _CAPTION + _GAP) + _CAPTION,
            scale,
        )
        for place in range(count)
    ]


def _draw_map(
    page: Page,
    show: _Show,
    panel: Panel,
    attention: NDArray[np.floating],
    points: NDArray[np.floating] | None,
) -> None:
    """One object's attention [R,C] over the faded image, from its least (clear) to its greatest value."""
    width, height = _thumb_width(show), _thumb_height(show)
    small = _resized(show.picture, width, height)
    axes = page.image(heat_over(small, attention), panel._replace(scale=1.0))
    if points is None:
        return
    for x, y, label in np.asarray(points, np.float64).reshape(-1, 3).tolist():
        if label in (0, 1):
            marker, colour = ('o', '#39d353') if label else ('X', '#ff5c5c')
            place = (x * panel.scale,), (y * panel.scale,)
            (mark,) = axes.plot(
                *place, marker, ms=6, mfc=colour, mec='white', mew=0.8, zorder=4, clip_on=False
            )
            mark.set_path_effects(halo(1.0))
