"""Loss and AP curves of a training, from the scalars mmengine writes."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from atss_ext.visualization.page import DISTINCT, FAINT, Page, unit

_PLOT = (470, 300)  # width, height of one plot in pixels
_AP_KEYS = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75')
_AP_NAMES = ('AP', 'AP50', 'AP75')


class Scalars(NamedTuple):
    """What a training logged: losses by iteration, metrics by epoch; later values of a step win."""

    train: dict[int, dict[str, float]]
    val: dict[int, dict[str, float]]


def read_scalars(files: Iterable[str | os.PathLike[str]]) -> Scalars:
    """Read one or more ``vis_data/scalars.json`` (a resumed training has several), oldest first.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a line that is not JSON, other than a last one cut off by a kill.
    """
    train: dict[int, dict[str, float]] = {}
    val: dict[int, dict[str, float]] = {}
    for file in files:
        lines = Path(file).read_text().splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                row: dict[str, Any] = json.loads(line)
            except ValueError:
                if number == len(lines):
                    continue
                raise ValueError(
                    f'{file} line {number} is not JSON: {line[:60]!r}; is it a scalars.json?'
                ) from None
            if 'loss' in row:
                train[int(row['step'])] = row
            elif any('/' in key for key in row):
                val[int(row['step'])] = {key.split('/')[-1]: value for key, value in row.items()}
    return Scalars(train, val)


def draw_curves(
    path: str | os.PathLike[str], scalars: Scalars, title: str = 'Training'
) -> tuple[float, float, float, float]:
    """Write a page with the losses (left) and the AP (right, from 0 to 1).

    Args:
        path: of the PNG to write.
        scalars: from :func:`read_scalars`.
        title: of the page.

    Returns:
        the AP plot on the page: left, top, width, height in pixels; AP 0 is its lower edge, 1 its upper.

    Raises:
        ValueError: no loss was logged.
    """
    if not scalars.train:
        raise ValueError('scalars holds no loss: train at least one logging interval first.')
    page = Page(2 * _PLOT[0] + 190, _PLOT[1] + 130)
    page.text(16, 32, title, size=15, weight='bold')
    _draw_losses(page.axes(70, 70, *_PLOT), scalars.train)
    place = (_PLOT[0] + 150, 70, *_PLOT)
    _draw_ap(page.axes(*place), scalars.val)
    page.save(path)
    return place


def _draw_losses(axes: Axes, train: dict[int, dict[str, float]]) -> None:
    steps = sorted(train)
    names = ['loss', *sorted(key for key in train[steps[-1]] if key.startswith('loss_'))]
    for number, name in enumerate(names):
        values = [train[step].get(name, np.nan) for step in steps]
        label = 'sum' if name == 'loss' else name.removeprefix('loss_')
        colour = (40, 40, 40) if name == 'loss' else DISTINCT[number]
        axes.plot(steps, values, color=unit(colour), lw=2.0 if name == 'loss' else 1.4, label=label)
    _dress(axes, 'loss (training images)', 'iteration')
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)


def _draw_ap(axes: Axes, val: dict[int, dict[str, float]]) -> None:
    _dress(axes, 'average precision (validation images)', 'epoch')
    axes.set_ylim(0, 1)
    if not val:
        axes.text(0.5, 0.5, 'not evaluated yet', transform=axes.transAxes, ha='center', color=FAINT)
        return
    epochs = sorted(val)
    for key, name, colour in zip(_AP_KEYS, _AP_NAMES, DISTINCT[:3], strict=True):
        values = [val[epoch].get(key, np.nan) for epoch in epochs]
        # A plot that ends at its frame would cut the last marker in half.
        axes.plot(
            epochs,
            values,
            color=unit(colour),
            lw=1.8,
            marker='o',
            ms=4,
            label=f'{name} {values[-1]:.3f}',
            clip_on=False,
        )
    axes.set_xlim(0, max(epochs))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9, loc='lower right' if max(_last(val)) > 0.3 else 'upper left')


def _last(val: dict[int, dict[str, float]]) -> Sequence[float]:
    return [val[max(val)].get(key, 0.0) for key in _AP_KEYS]


def _dress(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=10.5, loc='left')
    axes.set_xlabel(below, fontsize=9.5)
    axes.tick_params(labelsize=9)
    axes.grid(color='#d8dee4', lw=0.7)
    axes.set_axisbelow(True)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
