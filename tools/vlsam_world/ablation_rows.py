"""The steps of the paper one after the other (its tables 3 to 5): each row is the one above and more."""

from collections.abc import Mapping
from typing import Any, NamedTuple

_NAIVE: dict[str, Any] = {
    'flow': {'flow': 'none', 'heads': 'uniform'},
    'prompts': {'negatives': 0},
    'refine': {'feedback': 0, 'resample': 0},
    'corners': False,
    'questions': 'single',
}


PAPER = '+ question ensemble'
"""The row of the whole method."""


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        name: what this row has and the one above has not.
        settings: of :class:`~atss_ext.vlsam.options.PipelineOptions`.
    """

    name: str
    settings: Mapping[str, Any]


def paper_rows() -> list[Row]:
    """From naive attention to the whole method, in the order of the paper."""
    steps: list[tuple[str, dict[str, Any]]] = [
        ('naive attention', {}),
        ('+ flow, not regularised', {'flow': {'flow': 'plain', 'heads': 'uniform'}}),
        ('+ regularisation', {'flow': {'flow': 'regularised', 'heads': 'uniform'}}),
        ('+ head weights', {'flow': {'flow': 'regularised', 'heads': 'mean-max'}}),
        ('+ point pairs', {'prompts': {'negatives': 1}}),
        ('+ refinement', {'refine': {'feedback': 1, 'resample': 1}}),
        ('+ multi-scale', {'corners': True}),
        (PAPER, {'questions': 'default'}),
    ]
    rows, settings = [], dict(_NAIVE)
    for name, change in steps:
        settings = {**settings, **change}
        rows.append(Row(name, settings))
    return rows
