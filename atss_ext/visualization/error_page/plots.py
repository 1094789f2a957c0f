"""Inline SVG: the confusion matrix and the curves of precision over recall."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.errors.curves import RECALLS
from atss_ext.visualization.error_page.markup import BLANK, shown, table, tag, text

CELL = 22
"""Side of a cell of the confusion matrix at least, pixels."""
LARGEST_CELL, SIDE = 64, 480
"""Few cells grow up to that, to fill a matrix of that side, pixels."""
LETTERS = 20
"""Longest name that fits there; longer ones are cut, and whole in the tooltip."""
WIDTH, HEIGHT, MARGIN = 560, 360, 56


def matrix_plot(matrix: NDArray[np.int64], names: Sequence[str]) -> str:
    """A confusion matrix: rows true, columns detected, shaded by the share of the row's sum.

    Args:
        matrix: [M, M], the last row and column are the background.
        names: of the M rows.
    """
    cell = min(LARGEST_CELL, max(CELL, SIDE // len(names)))
    size = len(names) * cell
    room = _room(names)
    sums = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares = matrix / sums
    parts = [_axis_names(names, room, cell)]
    for row in range(len(names)):
        for column in range(len(names)):
            parts.append(
                _cell(row, column, int(matrix[row, column]), float(shares[row, column]), names, room, cell)
            )
    parts += [
        tag(
            'text', 'detected as', x=room + size / 2, y=14, text_anchor='middle', class_='faint', font_size=13
        ),
        tag(
            'text',
            'true',
            transform=f'translate(14 {room + size / 2}) rotate(-90)',
            text_anchor='middle',
            class_='faint',
            font_size=13,
        ),
    ]
    total = room + size + 8
    label = (
        f'Confusion matrix of {len(names) - 1} categories and the background; the table below has its cells'
    )
    svg = tag(
        'svg', ''.join(parts), viewBox=f'0 0 {total} {total}', role='img', aria_label=label,
        style=f'max-width:{total}px;min-width:{min(total, 640)}px',
    )  # fmt: skip
    return tag('div', svg, class_='scroll matrix', tabindex=0, role='region', aria_label='Confusion matrix')


def _axis_names(names: Sequence[str], room: float, cell: int) -> str:
    parts = []
    for place, name in enumerate(names):
        middle = room + place * cell + cell / 2
        words = tag('title', text(name)) + text(short(name))
        parts.append(tag('text', words, x=room - 6, y=middle + 4, text_anchor='end', font_size=12))
        turned = f'translate({middle + 4} {room - 6}) rotate(-90)'
        parts.append(tag('text', words, transform=turned, font_size=12))
    return ''.join(parts)


def _cell(
    row: int, column: int, count: int, share: float, names: Sequence[str], room: float, side: int
) -> str:
    x, y = room + column * side, room + row * side
    place: dict[str, Any] = {'x': x, 'y': y, 'width': side, 'height': side}
    if not count:
        return tag('rect', class_='cell', fill='none', **place)
    what = f'{names[row]} as {names[column]}: {count:,} ({shown(share)} of the row)'
    # Not fully opaque: the count on it stays readable on light and dark.
    shade = tag(
        'rect',
        tag('title', text(what)),
        class_='cell heat',
        fill_opacity=f'{0.1 + 0.55 * share:.2f}',
        **place,
    )
    size = (11 if count < 100 else 9 if count < 1000 else 8) + (side - CELL) // 10
    words = (
        f'{count}' if count < 1000 else f'{count / 1000:.0f}k' if count < 10**6 else f'{count / 10**6:.0f}M'
    )
    return shade + tag(
        'text',
        words,
        x=x + side / 2,
        y=y + side / 2 + 4,
        text_anchor='middle',
        font_size=size,
        pointer_events='none',
    )


def _room(names: Sequence[str]) -> float:
    """Space for the names beside and above the matrix, and for a word on the axis, pixels."""
    return 36 + 7.2 * max(len(short(name)) for name in names)


def short(name: str) -> str:
    """A name that fits beside the matrix."""
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + '\N{HORIZONTAL ELLIPSIS}'


def mean_plot(curve: NDArray[np.float64]) -> str:
    """The mean curve of precision over recall, [R], as a plot and as a table."""
    across, down = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    parts = []
    for step in range(6):
        x, y = MARGIN + across * step / 5, HEIGHT - MARGIN - down * step / 5
        parts.append(tag('line', x1=x, x2=x, y1=MARGIN, y2=HEIGHT - MARGIN, class_='grid'))
        parts.append(tag('line', x1=MARGIN, x2=WIDTH - MARGIN, y1=y, y2=y, class_='grid'))
        words = f'{step / 5:.1f}'
        parts.append(tag('text', words, x=x, y=HEIGHT - MARGIN + 20, text_anchor='middle', font_size=14))
        parts.append(tag('text', words, x=MARGIN - 8, y=y + 5, text_anchor='end', font_size=14))
    parts.append(tag('text', 'recall', x=WIDTH / 2, y=HEIGHT - 12, text_anchor='middle', font_size=14))
    parts.append(tag('text', 'precision', x=MARGIN, y=MARGIN - 16, text_anchor='middle', font_size=14))
    if curve[0] >= 0:
        points = _points(curve, MARGIN, MARGIN, across, down, 1)
        parts.append(tag('polyline', points=points, class_='curve'))
    label = 'Mean precision over recall; the table below has its values'
    svg = tag('svg', ''.join(parts), viewBox=f'0 0 {WIDTH} {HEIGHT}', role='img', aria_label=label)
    every = range(0, len(RECALLS), 10)
    heads = [tag('th', 'Recall', scope='col'), *(tag('th', f'{RECALLS[i]:.1f}', scope='col') for i in every)]
    values = [tag('td', BLANK if curve[i] < 0 else f'{curve[i]:.3f}') for i in every]
    row = tag('tr', tag('th', 'Precision', scope='row') + ''.join(values))
    return tag('div', svg, class_='plot') + table('Mean precision at 11 of the 101 recalls', heads, [row])


def sparkline(curve: NDArray[np.float64], name: str, ap: float | None) -> str:
    """A category's curve, [R], small enough for a row of a table."""
    if curve[0] < 0:
        return BLANK
    points = _points(curve, 0, 1, 96, 30, 4)
    label = f'Precision over recall of {name}, AP {shown(ap)}'
    line = tag('polyline', points=points, class_='curve thin')
    return tag('svg', line, viewBox='0 0 96 32', class_='spark', role='img', aria_label=label)


def _points(curve: NDArray[np.float64], x: int, y: int, across: int, down: int, step: int) -> str:
    return ' '.join(
        f'{x + across * recall:.0f},{y + down * (1 - value):.0f}'
        for recall, value in zip(RECALLS[::step], curve[::step], strict=True)
    )
