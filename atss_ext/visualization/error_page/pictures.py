"""The worst images as pictures, with objects and detections drawn over them."""

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from atss_ext.datasets.annotation_checks.table import float_of
from atss_ext.evaluation.errors.figures import ErrorReport
from atss_ext.evaluation.errors.kinds import WRONG, Kind, Outcome
from atss_ext.evaluation.errors.worst import WorstImage
from atss_ext.visualization.error_page.markup import tag, text

LONGEST = 720
"""Longer side of a picture, pixels."""
BUDGET = 3_000_000
"""All pictures together, bytes of base64."""
QUALITY = 80
MARKED = 15
"""Errors that one picture marks; the others are counted."""


class Mark(NamedTuple):
    """One error of a picture: its kind, what it is, its weight, and its box (xywh, pixels)."""

    kind: str
    words: str
    weight: float
    box: tuple[float, ...]


def gallery(report: ErrorReport, folder: str | Path | None) -> tuple[str, list[str]]:
    """All worst images, and the names of those that have no picture.

    Args:
        report: names the images.
        folder: of the pictures; None draws on an empty ground.
    """
    figures, missing = [], []
    share = BUDGET // max(1, len(report.worst))
    for one in report.worst:
        entry = report.truth.images[one.row]
        picture = None if folder is None else _embedded(Path(folder), entry, share)
        if picture is None and folder is not None:
            missing.append(str(entry.get('file_name', entry['id'])))
        figures.append(_figure(report, one, picture))
    return tag('div', '\n'.join(figures), class_='pictures'), missing


class Picture(NamedTuple):
    """A JPEG in base64, and the size of the image it was made from, pixels."""

    data: str
    width: int
    height: int


def _embedded(folder: Path, entry: Mapping[str, Any], limit: int) -> Picture | None:
    """The picture of an image, at most ``limit`` bytes; None if there is no readable one."""
    path = find_image(folder, entry)
    if path is None:
        return None
    try:
        with Image.open(path) as opened:
            size = opened.size
            opened.draft('RGB', (LONGEST, LONGEST))  # a JPEG is decoded no larger than needed
            image = opened.convert('RGB')
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    image.thumbnail((LONGEST, LONGEST))
    while True:
        stream = io.BytesIO()
        image.save(stream, 'JPEG', quality=QUALITY)
        data = base64.b64encode(stream.getvalue()).decode('ascii')
        if len(data) <= limit or max(image.size) <= 64:
            return Picture(data, *size)
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))


def find_image(folder: Path, entry: Mapping[str, Any]) -> Path | None:
    """Where the picture of an image lies: by ``file_name``, or by the end of LVIS's ``coco_url``.

    Names that lead out of the folder are not followed.
    """
    url = str(entry.get('coco_url', ''))
    names = [str(entry.get('file_name', '')), '/'.join(url.split('/')[-2:]), url.split('/')[-1]]
    root = folder.resolve()
    for name in filter(None, names):
        try:
            path = (root / name).resolve()
            if path.is_relative_to(root) and path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def marks(report: ErrorReport, one: WorstImage) -> list[Mark]:
    """The errors of an image, the heaviest first."""
    truth, kinds = report.truth, report.kinds
    detections = kinds.matching.detections
    found = []
    for place in one.objects.tolist():
        if kinds.outcome[place] == Outcome.MISSED:
            name = truth.names[truth.category[place]]
            found.append(Mark('missed', f'missed: {name}', 1.0, tuple(truth.boxes[place].tolist())))
    for place in one.detections.tolist():
        if kinds.kind[place] in WRONG:
            found.append(_wrong(report, place, detections.scores[place]))
    return sorted(found, key=lambda mark: -mark.weight)


def _wrong(report: ErrorReport, place: int, score: float) -> Mark:
    truth, kinds, detections = report.truth, report.kinds, report.kinds.matching.detections
    kind = Kind(kinds.kind[place])
    name = truth.names[detections.category[place]]
    target = kinds.target[place]
    true = f', true: {truth.names[truth.category[target]]}' if kind in (Kind.CONFUSED, Kind.BOTH) else ''
    words = f'{kind.name.lower()}: {name} {score:.2f}{true}'
    return Mark(kind.name.lower(), words, float(score), tuple(detections.boxes[place].tolist()))


def _figure(report: ErrorReport, one: WorstImage, picture: Picture | None) -> str:
    entry = report.truth.images[one.row]
    found = marks(report, one)
    name = str(entry.get('file_name') or entry.get('coco_url') or entry['id'])
    shown = found[:MARKED]
    lines = [
        tag('li', tag('span', str(number), class_=f'tagged {mark.kind}') + text(mark.words))
        for number, mark in enumerate(shown, 1)
    ]
    if len(found) > MARKED:
        lines.append(tag('li', f'and {len(found) - MARKED} more, not drawn'))
    ground = '' if picture else ' (no picture)'
    caption = f'{name}{ground}: {len(found)} errors, cost {one.cost:.2f}'
    return tag(
        'figure', _drawing(report, one, shown, picture, caption) + tag('figcaption', text(caption))
        + tag('ul', ''.join(lines)),
    )  # fmt: skip


def _drawing(
    report: ErrorReport, one: WorstImage, shown: list[Mark], picture: Picture | None, caption: str
) -> str:
    truth, kinds = report.truth, report.kinds
    width, height = (picture.width, picture.height) if picture else _size(report, one)
    unit = max(width, height) / 360  # about a pixel of the page
    parts = []
    if picture:
        source = f'data:image/jpeg;base64,{picture.data}'
        parts.append(tag('image', href=source, width=width, height=height, preserveAspectRatio='none'))
    for place in one.objects.tolist():
        kind = 'ignored' if truth.ignore[place] else 'object'
        parts.append(_box(kind, tuple(truth.boxes[place].tolist()), unit, truth.names[truth.category[place]]))
    for place in one.detections.tolist():
        if kinds.kind[place] == Kind.CORRECT:
            box = tuple(kinds.matching.detections.boxes[place].tolist())
            parts.append(_box('correct', box, unit, 'correct'))
    parts += [_box(mark.kind, mark.box, unit, mark.words) for mark in shown]
    parts += [_number(number, mark, unit, width, height) for number, mark in enumerate(shown, 1)]
    label = f'{caption}. {"; ".join(mark.words for mark in shown)}'
    return tag('svg', ''.join(parts), viewBox=f'0 0 {width:g} {height:g}', role='img', aria_label=label)


def _size(report: ErrorReport, one: WorstImage) -> tuple[float, float]:
    """The size the annotation file states, or what its objects and detections reach to."""
    entry = report.truth.images[one.row]
    width, height = (float_of(entry.get(key)) or 0.0 for key in ('width', 'height'))
    if 0 < width < math.inf and 0 < height < math.inf:
        return width, height
    boxes = [*report.truth.boxes[one.objects], *report.kinds.matching.detections.boxes[one.detections]]
    return max([1.0, *(box[0] + box[2] for box in boxes)]), max([1.0, *(box[1] + box[3] for box in boxes)])


def _box(kind: str, box: tuple[float, ...], unit: float, words: str) -> str:
    x, y, width, height = box
    dashed = {'missed': 4, 'object': 2, 'ignored': 2}.get(kind)
    return tag(
        'rect', tag('title', text(words)), class_=f'box {kind}',
        x=f'{x:.1f}', y=f'{y:.1f}', width=f'{width:.1f}', height=f'{height:.1f}',
        stroke_width=f'{(1 if kind == "object" else 2) * unit:.2f}',
        stroke_dasharray=f'{dashed * unit:.2f}' if dashed else None,
    )  # fmt: skip


def _number(number: int, mark: Mark, unit: float, width: float, height: float) -> str:
    """The number of an error at the corner of its box, kept inside of the picture."""
    wide, high = (10 if number < 10 else 17) * unit, 13 * unit
    x = min(max(mark.box[0], 0), width - wide)
    y = min(max(mark.box[1], 0), height - high)
    ground = tag(
        'rect',
        class_=f'mark {mark.kind}',
        x=f'{x:.1f}',
        y=f'{y:.1f}',
        width=f'{wide:.1f}',
        height=f'{high:.1f}',
    )
    return ground + tag(
        'text', str(number), x=f'{x + wide / 2:.1f}', y=f'{y + 10.5 * unit:.1f}', class_='number',
        text_anchor='middle', font_size=f'{11 * unit:.2f}',
    )  # fmt: skip
