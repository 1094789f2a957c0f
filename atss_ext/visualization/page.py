"""A page of pictures laid out in whole pixels, without pyplot's global state.

Every picture of this package is drawn on a :class:`Page`. Places on it are exact, so that a test (or
a web page) can ask where a point of an image lies.
"""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

DPI = 100
INK = '#1f2328'
FAINT = '#6a737d'

# Distinct on light and dark, also for most colour-blind readers (after Okabe and Ito), RGB.
DISTINCT: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (0, 158, 235),
    (213, 60, 40),
    (0, 178, 120),
    (240, 228, 66),
    (204, 100, 190),
    (120, 94, 240),
    (140, 220, 80),
    (255, 150, 160),
    (90, 220, 225),
)


class Panel(NamedTuple):
    """Where an image lies on a page: its top left corner, and page pixels per image pixel."""

    left: int
    top: int
    scale: float

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        """(column, row) of the page for the image point (x, y)."""
        return int(self.left + x * self.scale), int(self.top + y * self.scale)


class Page:
    """A white canvas of width x height pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor='white')
        self.canvas = FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place counted from the top left corner."""
        return self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )

    def image(self, image: NDArray[np.uint8], panel: Panel) -> Axes:
        """An RGB image [H,W,3] in its panel; the axes' data are the image's pixels."""
        height, width = image.shape[:2]
        axes = self.axes(panel.left, panel.top, width * panel.scale, height * panel.scale)
        axes.imshow(image, extent=(0, width, height, 0), interpolation='bilinear', aspect='auto')
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        return axes

    def text(
        self, x: float, y: float, words: str, size: float = 9, colour: Any = INK, **options: Any
    ) -> None:
        """Words whose baseline (or ``va``) is at the page's pixel (x, y)."""
        self.figure.text(x / self.width, 1 - y / self.height, words, fontsize=size, color=colour, **options)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as PNG, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f'.{uuid.uuid4().hex}.partial')  # several processes may draw it
        with matplotlib.rc_context({'font.family': 'DejaVu Sans'}):
            self.figure.savefig(partial, format='png', dpi=DPI, metadata={'Software': None})
        os.replace(partial, path)
        return path


def halo(width: float = 2.0, colour: Any = 'black') -> list[AbstractPathEffect]:
    """A rim that keeps lines and letters readable on any image."""
    return [withStroke(linewidth=width, foreground=colour)]


def unit(colour: Sequence[int]) -> tuple[float, float, float]:
    """RGB 0..255 as matplotlib wants it."""
    red, green, blue = (channel / 255 for channel in colour)
    return red, green, blue


def fit_scale(shape: tuple[int, ...], width: int) -> float:
    """The scale at which an image [H,W,...] becomes ``width`` pixels wide."""
    return width / shape[1]


def check_image(image: NDArray[np.uint8]) -> None:
    """Refuse what is no RGB uint8 image [H,W,3].

    Raises:
        ValueError: with the offending shape and dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f'image must be RGB uint8 [H,W,3], but is {image.dtype} {list(image.shape)}.')
