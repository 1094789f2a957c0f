"""Detections beside ground truth."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atss_ext.visualization.labels import draw_boxes
from atss_ext.visualization.page import DISTINCT, FAINT, Page, Panel, check_image, fit_scale

_GAP, _CAPTION, _HEADER, _FOOTER = 16, 26, 64, 30


class Exhibit(NamedTuple):
    """One image with what is in it and what was found.

    Attributes:
        title: printed above, such as the file's name.
        image: RGB uint8 [H,W,3].
        boxes: true boxes xyxy [M,4].
        names: M names.
        found_boxes: detections xyxy [D,4].
        found_names: D names.
        scores: [D].
    """

    title: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.floating]
    names: Sequence[str]
    found_boxes: NDArray[np.floating]
    found_names: Sequence[str]
    scores: NDArray[np.floating]


def draw_detections(
    path: str | os.PathLike[str],
    exhibits: Sequence[Exhibit],
    title: str,
    score_threshold: float = 0.3,
    colours: Mapping[str, tuple[int, int, int]] | None = None,
    columns: int = 2,
    width: int = 416,
) -> list[tuple[Panel, Panel]]:
    """Write a page with truth (left) and detections (right) of a few images.

    A detection is right when it has the name of a true box it meets with an IoU of at least 0.5 that no
    better one has taken; the others are dashed.

    Args:
        path: of the PNG to write.
        exhibits: the images.
        title: of the page.
        score_threshold: detections below are not drawn.
        colours: RGB by name; names without one share :data:`page.DISTINCT`.
        columns: pairs side by side.
        width: of one picture on the page, in pixels.

    Returns:
        for each exhibit where its two pictures lie.

    Raises:
        ValueError: nothing to draw, or an image is not RGB uint8.
    """
    if not exhibits:
        raise ValueError('exhibits is empty: pass at least one image to draw.')
    for exhibit in exhibits:
        check_image(exhibit.image)
    columns = min(columns, len(exhibits))
    tallest = max(round(e.image.shape[0] * fit_scale(e.image.shape, width)) for e in exhibits)
    row_height, pair_width = tallest + _CAPTION + _GAP, 2 * width + 4 + 2 * _GAP
    rows = -(-len(exhibits) // columns)
    page = Page(columns * pair_width, _HEADER + rows * row_height + _FOOTER)
    page.text(_GAP, 32, title, size=15, weight='bold')
    page.text(
        _GAP,
        53,
        f'Left: the truth. Right: detections with a score of at least {score_threshold:g}.',
        9.5,
        FAINT,
    )
    panels = []
    for number, exhibit in enumerate(exhibits):
        left = _GAP + (number % columns) * pair_width
        top = _HEADER + (number // columns) * row_height + _CAPTION
        scale = fit_scale(exhibit.image.shape, width)
        pair = (Panel(left, top, scale), Panel(left + width + 4, top, scale))
        _draw_pair(page, pair, exhibit, score_threshold, colours or {})
        panels.append(pair)
    page.text(_GAP, page.height - 12, 'Dashed: no true object of that name there (IoU 0.5).', 9, FAINT)
    page.save(path)
    return panels


def match(exhibit: Exhibit, shown: NDArray[np.bool_], iou_threshold: float = 0.5) -> NDArray[np.bool_]:
    """Which detections [D] are right, the best scores choosing first; those not ``shown`` never are."""
    right = np.zeros(len(exhibit.scores), dtype=bool)
    free = np.ones(len(exhibit.names), dtype=bool)
    for number in np.argsort(-exhibit.scores, kind='stable').tolist():
        same = np.array([name == exhibit.found_names[number] for name in exhibit.names], dtype=bool)
        if not shown[number] or not (free & same).any():
            continue
        overlap = np.where(free & same, _ious(exhibit.found_boxes[number], exhibit.boxes), -1)
        best = int(overlap.argmax())
        if overlap[best] >= iou_threshold:
            right[number], free[best] = True, False
    return right


def _draw_pair(
    page: Page,
    pair: tuple[Panel, Panel],
    exhibit: Exhibit,
    score_threshold: float,
    colours: Mapping[str, tuple[int, int, int]],
) -> None:
    shown = np.asarray(exhibit.scores) >= score_threshold
    right = match(exhibit, shown)
    truth = [name_colour(name, colours) for name in exhibit.names]
    draw_boxes(page.image(exhibit.image, pair[0]), np.asarray(exhibit.boxes), list(exhibit.names), truth)
    kept = np.flatnonzero(shown).tolist()
    draw_boxes(
        page.image(exhibit.image, pair[1]),
        np.asarray(exhibit.found_boxes)[kept].reshape(-1, 4),
        [f'{exhibit.found_names[i]} {exhibit.scores[i]:.2f}' for i in kept],
        [name_colour(exhibit.found_names[i], colours) for i in kept],
        dashed=[not right[i] for i in kept],
    )
    false = int(shown.sum() - right.sum())
    verdict = (
        f'{int(right.sum())} of {len(exhibit.names)} found, {false} false'
        if exhibit.names
        else ('empty, and nothing found' if not false else f'empty, {false} false')
    )
    page.text(pair[0].left, pair[0].top - 7, exhibit.title, weight='bold')
    right_all = not false and int(right.sum()) == len(exhibit.names)
    page.text(pair[1].left, pair[1].top - 7, verdict, colour='#1a7f37' if right_all else '#9a6700')


def name_colour(name: str, colours: Mapping[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    """A name's RGB: its own, or one of :data:`page.DISTINCT`, the same wherever the name appears."""
    return colours.get(name) or DISTINCT[sum(name.encode()) % len(DISTINCT)]


def _ious(box: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return shared / np.maximum(area + areas - shared, 1e-9)
