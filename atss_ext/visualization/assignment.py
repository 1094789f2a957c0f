"""Which priors learn which object: one picture a pyramid level."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from atss_ext.visualization.page import (
    DISTINCT,
    DPI,
    FAINT,
    INK,
    Page,
    Panel,
    check_image,
    fit_scale,
    halo,
    unit,
)

_GAP, _CAPTION, _HEADER, _ROW = 16, 26, 64, 20
_MAX_ROWS = 14


def draw_assignment(
    path: str | os.PathLike[str],
    image: NDArray[np.uint8],
    priors: NDArray[np.floating],
    level_sizes: Sequence[int],
    assigned: NDArray[np.integer],
    boxes: NDArray[np.floating],
    names: Sequence[str],
    title: str = 'Which priors learn which object',
    level_names: Sequence[str] | None = None,
    columns: int = 3,
    width: int = 420,
) -> list[Panel]:
    """Write a page with the image, then one panel a level: all priors' centres, the positives coloured.

    Args:
        path: of the PNG to write.
        image: RGB uint8 [H,W,3], what the priors lie on.
        priors: xyxy [N,4], level after level.
        level_sizes: number of priors of each of the L levels.
        assigned: [N]: -1 ignored, 0 background, i + 1 for gt i.
        boxes: gts xyxy [M,4].
        names: M names of the gts.
        title: of the page.
        level_names: L names; the default is the size of the level's priors.
        columns: panels side by side.
        width: of one panel, in pixels.

    Returns:
        where the 1 + L panels lie: first the image with its gts, then the levels.

    Raises:
        ValueError: sizes that do not fit together, or an image that is not RGB uint8.
    """
    _check(image, priors, level_sizes, assigned, boxes, names)
    scale = fit_scale(image.shape, width)
    panel_height = round(image.shape[0] * scale) + _CAPTION + _GAP
    columns = min(columns, 1 + len(level_sizes))
    rows = -(-(1 + len(level_sizes)) // columns)
    table = (2 + min(len(boxes), _MAX_ROWS + 1)) * _ROW if len(boxes) else 0
    page = Page(max(columns * (width + _GAP) + _GAP, 700), _HEADER + rows * panel_height + table + 20)
    positive = assigned > 0
    page.text(_GAP, 32, title, size=15, weight='bold')
    summary = f'{len(boxes)} objects, {int(positive.sum())} positives among {len(priors):,} priors.'
    dots = 'Grey dot: a prior. Coloured dot: a positive of the object of that colour. Cross: ignored.'
    page.text(_GAP, 53, f'{summary}   {dots}', 9.5, FAINT)
    panels = [
        Panel(
            _GAP + (n % columns) * (width + _GAP), _HEADER + (n // columns) * panel_height + _CAPTION, scale
        )
        for n in range(1 + len(level_sizes))
    ]
    _draw_gts(page, panels[0], image, boxes, 'The image and its objects')
    levels = np.split(np.arange(len(priors)), np.cumsum(level_sizes)[:-1])
    captions = list(level_names) if level_names else [_level_name(priors[level]) for level in levels]
    for panel, level, caption in zip(panels[1:], levels, captions, strict=True):
        count = int(positive[level].sum())
        words = f'{caption}: {count} positive of {len(level):,}'
        _draw_level(page, panel, image, boxes, priors[level], assigned[level], words)
    if len(boxes):
        counts = [np.bincount(assigned[level].clip(0), minlength=len(boxes) + 1)[1:] for level in levels]
        _draw_table(page, _HEADER + rows * panel_height, boxes, names, captions, np.stack(counts, axis=1))
    page.save(path)
    return panels


def gt_colour(number: int) -> tuple[int, int, int]:
    """The RGB of gt ``number`` and of its positives."""
    return DISTINCT[number % len(DISTINCT)]


def _level_name(priors: NDArray[np.floating]) -> str:
    if not len(priors):
        return 'no priors'
    width, height = np.median(priors[:, 2] - priors[:, 0]), np.median(priors[:, 3] - priors[:, 1])
    return f'priors of {width:g} x {height:g} px'


def _draw_gts(
    page: Page, panel: Panel, image: NDArray[np.uint8], boxes: NDArray[np.floating], caption: str
) -> None:
    axes = page.image(image, panel)
    page.text(panel.left, panel.top - 7, caption, weight='bold')
    for number, box in enumerate(boxes.tolist()):
        outline = Rectangle(
            (box[0], box[1]), box[2] - box[0], box[3] - box[1], fill=False, lw=1.5, ec=unit(gt_colour(number))
        )
        outline.set_path_effects(halo(2.8))
        axes.add_patch(outline)


def _draw_level(
    page: Page,
    panel: Panel,
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    priors: NDArray[np.floating],
    assigned: NDArray[np.integer],
    caption: str,
) -> None:
    grey = image.mean(axis=2, keepdims=True)
    faded = np.broadcast_to(165 + grey * 0.33, image.shape).astype(np.uint8)
    _draw_gts(page, panel, faded, boxes, caption)
    axes = page.figure.axes[-1]
    x, y = (priors[:, 0] + priors[:, 2]) / 2, (priors[:, 1] + priors[:, 3]) / 2
    rest = assigned <= 0
    axes.scatter(x[rest], y[rest], s=_points(2.2), color='#8b949e', linewidths=0, zorder=4)
    ignored = assigned < 0
    axes.scatter(x[ignored], y[ignored], s=_points(6), marker='x', color=INK, linewidths=0.9, zorder=5)
    # The dots of the finest level must not run into each other.
    spacing = np.sqrt(image.shape[0] * image.shape[1] / max(1, len(priors))) * panel.scale
    size = float(np.clip(0.62 * spacing, 5, 11))
    colours = [unit(gt_colour(int(number) - 1)) for number in assigned[~rest]]
    axes.scatter(x[~rest], y[~rest], s=_points(size), c=colours, linewidths=0.6, edgecolors='black', zorder=6)


def _points(diameter: float) -> float:
    """matplotlib's marker size (an area in points) of a diameter in pixels."""
    return (diameter * 72 / DPI) ** 2


def _draw_table(
    page: Page,
    top: float,
    boxes: NDArray[np.floating],
    names: Sequence[str],
    captions: Sequence[str],
    counts: NDArray[np.integer],
) -> None:
    """Positives of every gt [M] on every level [L], as text."""
    lefts = [
        _GAP + 24,
        190,
        *(290 + 150 * number for number in range(len(captions))),
        290 + 150 * len(captions),
    ]
    heads = ['object', 'box, px', *captions, 'all']
    for left, head in zip(lefts, heads, strict=True):
        page.text(left, top + 14, head, 8.5, FAINT)
    for row in range(min(len(boxes), _MAX_ROWS)):
        y = top + 14 + (row + 1) * _ROW
        page.text(_GAP, y, '\u25a0', 13, unit(gt_colour(row)))
        width, height = boxes[row, 2] - boxes[row, 0], boxes[row, 3] - boxes[row, 1]
        cells = [names[row], f'{width:.0f} x {height:.0f}', *map(str, counts[row]), str(counts[row].sum())]
        for left, cell in zip(lefts, cells, strict=True):
            page.text(left, y, cell if cell != '0' else '\u00b7', 9)
    if len(boxes) > _MAX_ROWS:
        page.text(
            _GAP + 24, top + 14 + (_MAX_ROWS + 1) * _ROW, f'and {len(boxes) - _MAX_ROWS} more', 9, FAINT
        )


def _check(
    image: NDArray[np.uint8],
    priors: NDArray[np.floating],
    level_sizes: Sequence[int],
    assigned: NDArray[np.integer],
    boxes: NDArray[np.floating],
    names: Sequence[str],
) -> None:
    check_image(image)
    if priors.ndim != 2 or priors.shape[1] != 4 or sum(level_sizes) != len(priors):
        raise ValueError(
            f'level_sizes {list(level_sizes)} must add up to the priors, but those are {list(priors.shape)}.'
        )
    if assigned.shape != (len(priors),):
        raise ValueError(
            f'assigned must hold one number a prior, [{len(priors)}], but is {list(assigned.shape)}.'
        )
    if len(boxes) != len(names):
        raise ValueError(f'boxes and names must be equally many, but are {len(boxes)} and {len(names)}.')
    if len(assigned) and not -1 <= assigned.min() <= assigned.max() <= len(boxes):
        raise ValueError(
            f'assigned must lie between -1 and the number of gts, {len(boxes)}, but reaches from '
            f'{assigned.min()} to {assigned.max()}.'
        )
