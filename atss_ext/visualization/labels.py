"""Boxes with names on a picture; labels keep clear of each other."""

from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from atss_ext.visualization.page import halo, unit

_SIZE = 7.5  # points


def draw_boxes(
    axes: Axes,
    boxes: NDArray[np.floating],
    labels: list[str],
    colours: list[tuple[int, int, int]],
    dashed: list[bool] | None = None,
) -> list[Bbox | None]:
    """Draw boxes and, beside each, its label where one fits.

    Args:
        axes: whose data are image pixels, y downwards.
        boxes: xyxy [M,4].
        labels: M texts; '' draws the box alone.
        colours: M RGB colours.
        dashed: M flags; a dashed box is a doubtful one.

    Returns:
        M rectangles of the labels in the page's pixels (y upwards); None where no place was free.
    """
    for number, (box, colour) in enumerate(zip(boxes.tolist(), colours, strict=True)):
        line = (0, (3, 2)) if dashed and dashed[number] else '-'
        outline = Rectangle(
            (box[0], box[1]),
            box[2] - box[0],
            box[3] - box[1],
            fill=False,
            lw=1.4,
            ls=line,
            ec=unit(colour),
            zorder=3,
        )
        outline.set_path_effects(halo(2.6))
        axes.add_patch(outline)
    # Small boxes first: they have the fewest places for their label.
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    taken: list[Bbox] = []
    places: list[Bbox | None] = [None] * len(labels)
    for number in np.argsort(area, kind='stable').tolist():
        if labels[number]:
            places[number] = _place_label(axes, boxes[number], labels[number], colours[number], taken)
    return places


def _place_label(
    axes: Axes, box: NDArray[np.floating], label: str, colour: tuple[int, int, int], taken: list[Bbox]
) -> Bbox | None:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x1, x2 = np.clip(box[[0, 2]], left, right).tolist()
    y1, y2 = np.clip(box[[1, 3]], top, bottom).tolist()
    bright = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140
    style: dict[str, Any] = {
        'fontsize': _SIZE,
        'color': 'black' if bright else 'white',
        'bbox': {'boxstyle': 'square,pad=0.15', 'fc': unit(colour), 'ec': 'black', 'lw': 0.5, 'alpha': 0.92},
        'zorder': 5,
        'annotation_clip': True,
    }
    frame = axes.get_window_extent()
    spots = [
        ((x1, y1), (2, 3), 'left', 'bottom'),
        ((x1, y2), (2, -3), 'left', 'top'),
        ((x2, y1), (-2, 3), 'right', 'bottom'),
        ((x2, y2), (-2, -3), 'right', 'top'),
        ((x2, (y1 + y2) / 2), (4, 0), 'left', 'center'),
        ((x1, (y1 + y2) / 2), (-4, 0), 'right', 'center'),
        ((x1, y1), (3, -3), 'left', 'top'),
        ((x2, y1), (-3, -3), 'right', 'top'),
        ((x2, y2), (-3, 3), 'right', 'bottom'),
        (((x1 + x2) / 2, (y1 + y2) / 2), (0, 0), 'center', 'center'),
        (((x1 + x2) / 2, y1), (0, 16), 'center', 'bottom'),
        (((x1 + x2) / 2, y2), (0, -16), 'center', 'top'),
    ]
    renderer = FigureCanvasAgg.get_renderer(cast(FigureCanvasAgg, axes.figure.canvas))
    for point, offset, ha, va in spots:
        text = axes.annotate(label, point, offset, textcoords='offset points', ha=ha, va=va, **style)
        text.update_positions(renderer)
        patch = text.get_bbox_patch()
        assert patch is not None
        text.update_bbox_position_size(renderer)
        place = patch.get_window_extent(renderer)
        inside = (
            place.x0 >= frame.x0 and place.x1 <= frame.x1 and place.y0 >= frame.y0 and place.y1 <= frame.y1
        )
        if inside and not any(place.overlaps(other) for other in taken):
            taken.append(place)
            return place
        text.remove()
    return None
