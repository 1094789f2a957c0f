"""The summary of a training set of pseudo-labels, for people."""

from collections.abc import Mapping
from typing import Any

_LISTED = 5
"""Names that a class lists at most."""


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Images, boxes kept and left out by reason, and classes with their counts and the names they are of."""
    images, boxes = summary['images'], summary['boxes']
    without = images['found'] - images['with labels']
    lines = [
        f'images   {images["found"]}: {images["with labels"]} with labels, {without} without; '
        f'{images["train"]} to train on, {images["val"]} to validate on',
        f'boxes    {boxes["found"]}: {boxes["kept"]} kept, {boxes["found"] - boxes["kept"]} left out',
    ]
    lines += [f'  {count:6}  {reason}' for reason, count in boxes['dropped'].items()]
    lines.append(f'classes  {len(summary["classes"])}')
    width = max(map(len, summary['classes']))
    for name, entry in summary['classes'].items():
        listed = ', '.join(list(entry['names'])[:_LISTED])
        more = len(entry['names']) - _LISTED
        of = f'  {listed}' + (f' and {more} more' if more > 0 else '')
        lines.append(f'  {entry["boxes"]:6}  {name:{width}}{of}'.rstrip())
    return lines
