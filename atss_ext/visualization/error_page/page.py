"""The page of an error report: one file that needs nothing else."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atss_ext.evaluation.errors.confusion import counted_cells, most_confused
from atss_ext.evaluation.errors.curves import mean_curve
from atss_ext.evaluation.errors.figures import BACKGROUND_NAME, ErrorReport, figures
from atss_ext.visualization.error_page.looks import SCRIPT, STYLE
from atss_ext.visualization.error_page.markup import section, table, tag, text
from atss_ext.visualization.error_page.pictures import gallery
from atss_ext.visualization.error_page.plots import matrix_plot, mean_plot
from atss_ext.visualization.error_page.tables import (
    category_table,
    group_table,
    kinds_table,
    outcomes_table,
    sentence,
    tiles,
)

LARGEST_MATRIX = 30
"""Categories that the confusion matrix shows."""
LISTED = 30
"""Confusions that are listed under it."""
PARTS = {
    'kinds': 'Kinds of errors',
    'sizes': 'By size',
    'frequencies': 'By frequency',
    'confusion': 'Confusion matrix',
    'curves': 'Precision over recall',
    'worst': 'Worst images',
    'categories': 'Categories',
}


def error_page(
    report: ErrorReport, result_file: str, images: str | Path | None = None
) -> tuple[str, tuple[str, ...]]:
    """Write the page.

    Nothing is fetched when it is read: style, script and pictures are in it, and its policy forbids the rest.

    Args:
        report: what it shows.
        result_file: path of the result file, for the heading.
        images: folder of the pictures; None draws the worst images on an empty ground.

    Returns:
        the HTML, and the notes on it that are not in the report: pictures that could not be read.
    """
    values = figures(report)
    pictures, missing = gallery(report, images)
    notes = []
    if missing:
        notes.append(
            f'{len(missing)} of {len(report.worst)} pictures are missing or unreadable in {images} '
            f'(first: {missing[0]}), and their boxes are drawn on an empty ground'
        )
    parts = [_start(report, values, result_file, [*report.notes, *notes]), *_parts(report, values, pictures)]
    body = tag('main', '\n'.join(parts)) + tag('script', SCRIPT)
    return f'<!DOCTYPE html>\n<html lang="en">{_head()}{tag("body", body)}</html>\n', tuple(notes)


def _head() -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode('ascii')
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return tag(
        'head',
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">' + tag('title', 'Error report') + tag('style', STYLE),
    )


def _start(report: ErrorReport, values: Mapping[str, Any], result_file: str, notes: list[str]) -> str:
    kind = ' (federated: categories an image was not searched for are ignored)' if values['federated'] else ''
    files = f'{Path(result_file).name} against {Path(report.truth.ann_file).name}{kind}'
    shown = (
        ('Images', 'images', values['images']),
        ('Objects', 'objects.total', values['objects']['total']),
        ('Detections', 'detections.total', values['detections']['total']),
        ('Recall', 'recall', values['recall']),
        ('Precision', 'precision', values['precision']),
        (f'AP at IoU {values["iou"]:g}', 'ap', values['ap']),
    )
    links = ''.join(tag('li', tag('a', title, href=f'#{identity}')) for identity, title in PARTS.items())
    said = tag('ul', ''.join(tag('li', text(note + '.')) for note in notes)) if notes else ''
    return '\n'.join(
        (
            tag('h1', 'Error report'),
            tag('p', text(files), class_='faint'),
            sentence(values),
            tiles(shown),
            said,
            tag('nav', tag('ul', links), aria_label='Parts of the report'),
        )
    )


def _parts(report: ErrorReport, values: Mapping[str, Any], pictures: str) -> list[str]:
    tables = {
        'kinds': (
            kinds_table(values['detections'], values['iou']),
            '<p></p>',
            outcomes_table(values['objects']),
        ),
        'sizes': (
            tag(
                'p',
                'Objects by their area, detections by that of their box; limits are 32² and 96² pixels. '
                'Shares are of all objects, or of all detections, of the size.',
            ),
            group_table('Errors by size', 'by_size', values['by_size']),
        ),
        'frequencies': (
            tag('p', _frequency_words(report)),
            group_table('Errors by frequency of the category', 'by_frequency', values['by_frequency']),
        ),
        'confusion': _confusion(report),
        'curves': (
            tag('p', 'Mean over the categories that have objects, of all detections whatever their score.'),
            mean_plot(mean_curve(report.curves)),
        ),
        'worst': (tag('p', _worst_words(report)), pictures),
        'categories': (
            '<label hidden>Show names with <input id="category-filter" type="search"></label>',
            category_table(values['categories'], report.curves),
        ),
    }
    return [section(identity, title, *tables[identity]) for identity, title in PARTS.items()]


def _frequency_words(report: ErrorReport) -> str:
    if report.truth.frequencies is not None:
        return 'Groups of LVIS: in up to 10, up to 100 and more images of its training set.'
    return 'Categories in order of how many objects they have here, cut into thirds.'


def _worst_words(report: ErrorReport) -> str:
    if not report.worst:
        return 'No image has an error, or none was asked for.'
    return (
        'Ranked by cost: objects not found, plus the scores of wrong detections. Thin white dots: objects; '
        'green: correct detections; red dashes: missed objects; other colours as in the tables, numbered as '
        'listed.'
    )


def _confusion(report: ErrorReport) -> tuple[str, ...]:
    rows = most_confused(report.matrix, LARGEST_MATRIX)
    count = len(report.truth.names)
    places = [*rows, count]
    names = [*report.truth.names, BACKGROUND_NAME]
    which = (
        f'The {len(rows)} of {count} categories most confused, or else most frequent'
        if len(rows) < count
        else 'All categories'
    )
    words = (
        f'{which}; shaded by the share of the row. Background as a column: objects neither found nor '
        'confused; as a row: duplicates, wrong places and what lies on background.'
    )
    cells = [cell for cell in counted_cells(report.matrix[:-1, :-1]) if cell[0] != cell[1]]
    listed = [
        tag(
            'tr',
            tag('th', text(names[row]), scope='row')
            + tag('td', text(names[to]), class_='words')
            + tag('td', f'{n:,}'),
        )
        for row, to, n in cells[:LISTED]
    ]
    heads = (
        tag('th', head, scope='col', class_=kind)
        for head, kind in (('True', None), ('Detected as', 'words'), ('Count', None))
    )
    below = (
        table(f'The most frequent of {len(cells)} confusions', heads, listed)
        if cells
        else tag('p', 'No category is taken for another.')
    )
    plot = matrix_plot(report.matrix[np.ix_(places, places)], [names[place] for place in places])
    return tag('p', words), plot, '<p></p>', below
