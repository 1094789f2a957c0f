"""One or two assignments of an image on one page: a row a config, a panel a pyramid level."""

import os
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from atss_ext.visualization.assignment import gt_colour
from atss_ext.visualization.assignments.explaining import AssignedImage
from atss_ext.visualization.assignments.listing import unlearned_first
from atss_ext.visualization.labels import draw_boxes
from atss_ext.visualization.letters import literal, printable
from atss_ext.visualization.page import DPI, FAINT, Page, Panel, fit_scale, unit

_GAP, _CAPTION, _HEADER, _HEADING, _LINE = 14, 22, 58, 30, 20
_DARK, _STEP = 0.42, 8
_MAX_LINES = 16
_LEGEND = (
    'Levels: stride, size of the priors, positives.   Circle: a positive of the object of its colour.   '
    'Dot: a prior.   Cross: ignored.   Dashed box: no positive at all.'
)


def draw_comparison(
    path: str | os.PathLike[str],
    shown: Sequence[tuple[str, AssignedImage]],
    title: str,
    width: int = 300,
) -> list[list[Panel]]:
    """Write a page; a row of panels a config: the image with its gts, then its levels; a table below.

    The table has 16 gts at most, those first that a config leaves without a positive.

    Args:
        path: of the PNG to write.
        shown: heading and assignment of one or more configs, all of the same image.
        title: of the page.
        width: of one panel, in pixels.

    Returns:
        where the panels of every row lie: first the image, then its levels.
    """
    columns = 1 + max(len(image.level_sizes) for _, image in shown)
    heights = [round(image.image.shape[0] * fit_scale(image.image.shape, width)) for _, image in shown]
    lines = min(len(shown[0][1].boxes), _MAX_LINES) + 3
    rows = [_HEADING + _CAPTION + height + _GAP for height in heights]
    page_width = max(columns * (width + _GAP) + _GAP, 270 + 260 * len(shown))
    page = Page(page_width, _HEADER + sum(rows) + lines * _LINE + 8)
    page.text(_GAP, 28, literal(printable(title, 120)), size=15, weight='bold')
    page.text(_GAP, 48, _LEGEND, 9.5, FAINT)
    places = []
    top = _HEADER
    for (heading, image), row in zip(shown, rows, strict=True):
        page.text(_GAP, top + 20, literal(printable(_heading(heading, image), 200)), 11.5, weight='bold')
        places.append(_draw_row(page, image, top + _HEADING + _CAPTION, width))
        top += row
    _draw_table(page, top, shown)
    page.save(path)
    return places


def _heading(words: str, image: AssignedImage) -> str:
    won = image.positives.sum(1)
    without = int((won == 0).sum())
    lost = f', {without} without a positive' if without else ''
    return f'{words}: {int(won.sum())} positives for {len(won)} objects{lost}'


def _draw_row(page: Page, image: AssignedImage, top: int, width: int) -> list[Panel]:
    scale = fit_scale(image.image.shape, width)
    colours = [gt_colour(number) for number in range(len(image.boxes))]
    lonely = (image.positives.sum(1) == 0).tolist()
    panels = [Panel(_GAP + n * (width + _GAP), top, scale) for n in range(1 + len(image.level_sizes))]
    labels = [str(number) for number in range(1, 1 + len(image.names))]
    height, length = image.image.shape[:2]
    page.text(panels[0].left, top - 7, f'the image, {length} x {height} px', 9)
    draw_boxes(page.image(image.image, panels[0]), image.boxes, labels, colours, lonely)
    dark = _darkened(image.image, width)
    ends = np.cumsum(image.level_sizes)
    for level, panel in enumerate(panels[1:]):
        own = slice(ends[level] - image.level_sizes[level], ends[level])
        _draw_level(page, panel, image, dark, own, image.strides[level])
    return panels


def _draw_level(
    page: Page, panel: Panel, image: AssignedImage, dark: NDArray[np.uint8], own: slice, stride: float
) -> None:
    priors, assigned, valid = image.priors[own], image.assigned[own], image.valid[own]
    height, length = image.image.shape[:2]
    axes = page.axes(panel.left, panel.top, dark.shape[1], dark.shape[0])
    axes.imshow(dark, extent=(0, length, height, 0), interpolation='nearest', aspect='auto')
    axes.set(xlim=(0, length), ylim=(height, 0))
    axes.set_axis_off()
    won = int((assigned > 0).sum())
    wide = dark.shape[1] >= 280
    page.text(
        panel.left,
        panel.top - 7,
        f'stride {stride:g}, {_size(priors)}: {won}' + (f' of {len(priors):,}' if wide else ''),
        9,
        weight='bold' if won else 'normal',
        colour='black' if won else FAINT,
    )
    for number, box in enumerate(image.boxes.tolist()):
        lonely = not (image.assigned == number + 1).any()
        axes.add_patch(
            Rectangle(
                (box[0], box[1]),
                box[2] - box[0],
                box[3] - box[1],
                fill=False,
                lw=1.3,
                ls=(0, (3, 2)) if lonely else '-',
                ec=unit(gt_colour(number)),
                zorder=3,
            )
        )
    _draw_points(axes, priors, assigned, valid, stride * panel.scale)


def _draw_points(
    axes: Axes,
    priors: NDArray[np.float32],
    assigned: NDArray[np.int64],
    valid: NDArray[np.bool_],
    spacing: float,
) -> None:
    """The centres of a level's priors, which lie ``spacing`` pixels of the page apart."""
    x, y = (priors[:, 0] + priors[:, 2]) / 2, (priors[:, 1] + priors[:, 3]) / 2
    rest = valid & (assigned == 0)
    if spacing >= 4:  # closer dots would be a grey sheet
        axes.scatter(x[rest], y[rest], s=_area(1.6), color='#aab2bd', alpha=0.55, linewidths=0, zorder=2)
    ignored = valid & (assigned < 0)
    axes.scatter(x[ignored], y[ignored], s=_area(4), marker='x', color='#9aa4ae', linewidths=0.8, zorder=4)
    positive = assigned > 0
    colours = [unit(gt_colour(int(number) - 1)) for number in assigned[positive]]
    size = float(np.clip(0.66 * spacing, 2.6, 14))
    rim = 0.7 if size > 5 else 0  # a rim would be all there is of a small one
    axes.scatter(
        x[positive], y[positive], s=_area(size), c=colours, linewidths=rim, edgecolors='black', zorder=5
    )


def _darkened(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """An image at its size on the page, dark and grey: no colour but the objects'.

    In few steps, too: the noise of a dozen panels would be most of the file.
    """
    height = round(image.shape[0] * fit_scale(image.shape, width))
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    grey = cv2.resize(image, (width, height), interpolation=method).mean(axis=2, keepdims=True)
    return np.broadcast_to((grey * _DARK).astype(np.uint8) // _STEP * _STEP, (height, width, 3))


def _area(diameter: float) -> float:
    """matplotlib's marker size (an area in points) of a diameter in pixels."""
    return (diameter * 72 / DPI) ** 2


def _size(priors: NDArray[np.float32]) -> str:
    """The size of a level's priors, or how many different ones there are."""
    if not len(priors):
        return 'no priors'
    sizes = np.unique(np.round(priors[:, 2:] - priors[:, :2]), axis=0)
    if len(sizes) > 1:
        return f'{len(sizes)} sizes'
    return f'{sizes[0, 0]:g} x {sizes[0, 1]:g}'


def _draw_table(page: Page, top: int, shown: Sequence[tuple[str, AssignedImage]]) -> None:
    """For 16 gts: name and size, then for every config its threshold and its positives by level."""
    first = shown[0][1]
    left, middle = _GAP, 270
    step = min(430, (page.width - middle - _GAP) // len(shown))
    page.text(left + 24, top + 36, 'object, px', 9, FAINT)
    for number, (heading, image) in enumerate(shown):
        start = middle + number * step
        page.text(start, top + 16, literal(printable(heading, max(20, step // 8))), 9.5, weight='bold')
        page.text(start, top + 36, 'threshold' if image.thresholds is not None else '', 9, FAINT)
        strides = ' / '.join(f'{stride:g}' for stride in image.strides)
        page.text(start + 80, top + 36, f'positives, by stride {strides}', 9, FAINT)
    order = unlearned_first([image for _, image in shown])
    for line, gt in enumerate(order[:_MAX_LINES], start=1):
        y = top + 36 + line * _LINE
        page.text(left, y, '\u25a0', 13, unit(gt_colour(gt)))
        size = first.boxes[gt, 2:] - first.boxes[gt, :2]
        words = f'{gt + 1} {first.names[gt]}'
        page.text(left + 24, y, literal(printable(words, 22)), 9.5)
        page.text(left + 178, y, f'{size[0]:.0f} x {size[1]:.0f}', 9.5)
        for number, (_, image) in enumerate(shown):
            _draw_counts(page, middle + number * step, y, image, gt)
    rest = order[_MAX_LINES:]
    if rest:
        without = sum(any(not image.positives[gt].any() for _, image in shown) for gt in rest)
        words = f'and {len(rest)} more' + (f', {without} of them without a positive' if without else '')
        page.text(left + 24, top + 36 + (_MAX_LINES + 1) * _LINE, words, 9, FAINT)


def _draw_counts(page: Page, left: int, y: float, image: AssignedImage, gt: int) -> None:
    if image.thresholds is not None:
        page.text(left, y, f'IoU {image.thresholds[gt]:.3f}', 9.5)
    counts = image.positives[gt]
    levels = ' / '.join(str(count) if count else '\u00b7' for count in counts.tolist())
    total = int(counts.sum())
    page.text(left + 80, y, f'{total}', 9.5, '#b42318' if not total else 'black', weight='bold')
    page.text(left + 112, y, f'=  {levels}', 9.5)
