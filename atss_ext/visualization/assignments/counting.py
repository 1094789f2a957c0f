"""How many gts of a dataset an assigner leaves without a positive, by size."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from atss_ext.visualization.assignments.explaining import AssignedImage

# COCO's: areas below, in pixels of the image as it is in the file.
SIZES = (('small', 32.0**2), ('medium', 96.0**2), ('large', float('inf')))


def count_unassigned(images: Iterable[AssignedImage]) -> dict[str, dict[str, int]]:
    """Gts, gts without a positive, and positives, by size and in all.

    Sizes are COCO's, of the boxes' areas.

    Returns:
        ``small``, ``medium``, ``large`` and ``all``, each with ``gts``, ``without`` and ``positives``.
    """
    limits = [limit for _, limit in SIZES[:-1]]
    counts = np.zeros((len(SIZES), 3), np.int64)
    for image in images:
        won = image.positives.sum(1)
        group = np.searchsorted(limits, image.areas, side='right')
        for column, values in enumerate((np.ones_like(won), won == 0, won)):
            np.add.at(counts[:, column], group, values)
    rows = {name: row for (name, _), row in zip(SIZES, counts, strict=True)}
    rows['all'] = counts.sum(0)
    return {
        name: dict(zip(('gts', 'without', 'positives'), map(int, row), strict=True))
        for name, row in rows.items()
    }


def table(counts: Sequence[tuple[str, str, dict[str, dict[str, int]]]]) -> list[str]:
    """Lines of text.

    Args:
        counts: name of the config, of its assigner, and what :func:`count_unassigned` returns, by config.
    """
    heads = ('config', 'assigner', 'size', 'gts', 'no positive', 'share', 'positives a gt')
    cells = [heads]
    for config, assigner, rows in counts:
        for name, row in rows.items():
            share, mean = (_ratio(row[key], row['gts']) for key in ('without', 'positives'))
            cells.append(
                (
                    config,
                    assigner,
                    name,
                    f'{row["gts"]:,}',
                    f'{row["without"]:,}',
                    '-' if share is None else f'{share:.1%}',
                    '-' if mean is None else f'{mean:.1f}',
                )
            )
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return ['  '.join(_align(row, widths)).rstrip() for row in cells]


def figures(counts: Sequence[tuple[str, str, dict[str, dict[str, int]]]]) -> list[dict[str, Any]]:
    """The same for a file of JSON: one object a config."""
    return [{'config': config, 'assigner': assigner, 'sizes': rows} for config, assigner, rows in counts]


def _align(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    texts = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
    return texts + [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
