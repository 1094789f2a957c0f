"""A sheet of images, a row each: the truth, what an open-ended detector found, and where it looked."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from atss_ext.visualization.detections import name_colour
from atss_ext.visualization.labels import draw_boxes
from atss_ext.visualization.overlay import Colour, heat_over, large_first, paint_mask
from atss_ext.visualization.page import FAINT, Page, Panel, check_image, halo

_GAP, _CAPTION, _HEADER = 14, 22, 70


class SheetRow(NamedTuple):
    """One image.

    Attributes:
        title: printed above.
        image: RGB uint8 [H,W,3].
        boxes: true boxes xyxy [M,4].
        names: M names.
        found_boxes: detections xyxy [D,4], best first.
        found_masks: bool [D,H,W].
        found_names: D names.
        scores: [D].
        maps: [D,R,C], each detection's attention over the image.
    """

    title: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.floating]
    names: Sequence[str]
    found_boxes: NDArray[np.floating]
    found_masks: NDArray[np.bool_]
    found_names: Sequence[str]
    scores: NDArray[np.floating]
    maps: NDArray[np.floating]


def draw_open_ended_sheet(
    path: str | os.PathLike[str],
    rows: Sequence[SheetRow],
    title: str,
    note: str = '',
    colours: Mapping[str, Colour] | None = None,
    maps: int = 3,
    width: int = 208,
) -> list[list[Panel]]:
    """Write the sheet.

    Args:
        path: of the PNG to write.
        rows: the images.
        title: of the page.
        note: a line below the title.
        colours: RGB by name; others share those of :data:`page.DISTINCT`.
        maps: so many detections an image, the best first, show their attention.
        width: of one picture on the page, pixels.

    Returns:
        for each image where its pictures lie: truth, detections, attention maps.

    Raises:
        ValueError: no image, or one that is not RGB uint8.
    """
    if not rows:
        raise ValueError('rows is empty: pass at least one image to draw.')
    for row in rows:
        check_image(row.image)
    heights = [max(1, round(row.image.shape[0] * width / row.image.shape[1])) for row in rows]
    page = Page(
        _GAP + (2 + maps) * (width + _GAP), _HEADER + sum(h + _CAPTION + _GAP for h in heights) + _GAP
    )
    page.text(_GAP, 30, title, size=15, weight='bold')
    page.text(_GAP, 52, note, 9.5, FAINT)
    places, top = [], _HEADER
    for row, height in zip(rows, heights, strict=True):
        scale = width / row.image.shape[1]
        panels = [
            Panel(_GAP + column * (width + _GAP), top + _CAPTION, scale)
            for column in range(2 + min(maps, len(row.scores)))
        ]
        _draw_row(page, row, panels, (width, height), colours or {})
        places.append(panels)
        top += height + _CAPTION + _GAP
    page.save(Path(path))
    return places


def _draw_row(
    page: Page, row: SheetRow, panels: Sequence[Panel], size: tuple[int, int], colours: Mapping[str, Colour]
) -> None:
    picture = np.asarray(cv2.resize(row.image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    scale = panels[0].scale
    page.text(panels[0].left, panels[0].top - 6, row.title, 9, weight='bold')
    tints = [name_colour(name, colours) for name in row.names]
    draw_boxes(_show(page, picture, panels[0]), np.asarray(row.boxes) * scale, list(row.names), tints)
    page.text(panels[1].left, panels[1].top - 6, f'{len(row.scores)} found', 9)
    tints = [name_colour(name, colours) for name in row.found_names]
    painted = picture.copy()
    for index in large_first(np.asarray(row.found_boxes), range(len(row.scores))):
        mask = cv2.resize(row.found_masks[index].astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
        paint_mask(painted, np.asarray(mask).astype(bool), tints[index])
    labels = [f'{name} {score:.2f}' for name, score in zip(row.found_names, row.scores, strict=True)]
    draw_boxes(_show(page, painted, panels[1]), np.asarray(row.found_boxes) * scale, labels, tints)
    for panel, name, attention in zip(panels[2:], row.found_names, row.maps, strict=False):
        page.text(panel.left, panel.top - 6, f'attention of "{name}"', 9, FAINT)
        axes = _show(page, heat_over(picture, attention), panel)
        peak = np.unravel_index(int(attention.argmax()), attention.shape)
        y, x = (
            (int(at) + 0.5) / n * side for at, n, side in zip(peak, attention.shape, size[::-1], strict=True)
        )
        (mark,) = axes.plot((x,), (y,), 'o', ms=6, mfc='#39d353', mec='white', mew=0.8, zorder=4)
        mark.set_path_effects(halo(1.0))


def _show(page: Page, picture: NDArray[np.uint8], panel: Panel) -> Axes:
    return page.image(picture, panel._replace(scale=1.0))
