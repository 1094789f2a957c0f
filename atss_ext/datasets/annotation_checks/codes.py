"""The codes of everything that a check can find, and how bad each is.

A code does not change with the wording, so that programs may go by it; docs/datasets.md lists all of them.
What is an error and what a warning: see :class:`~atss_ext.datasets.annotation_checks.table.Finding`.
"""

from types import MappingProxyType
from typing import Literal

Severity = Literal['error', 'warning']

_ERRORS = (
    'encoding', 'section', 'no-object', 'no-image',
    'image-id', 'image-id-twice', 'image-id-mixed', 'annotation-id', 'annotation-id-twice',
    'category-id', 'category-id-twice', 'category-id-mixed', 'unknown-image', 'unknown-category',
    'image-size', 'image-fraction', 'file-name', 'category-name', 'category-name-twice',
    'file-missing', 'file-unreadable', 'file-size', 'file-turned',
    'box-form', 'box-finite', 'box-negative', 'box-outside',
    'area-missing', 'area-finite', 'area-negative', 'crowd-missing', 'crowd-flag',
    'segment-form', 'polygon-odd', 'polygon-short', 'polygon-number', 'polygon-far', 'polygon-long',
    'rle-size', 'rle-counts',
    'lvis-negative-list', 'lvis-negative-unknown', 'lvis-partial-list', 'lvis-partial-unknown',
    'lvis-negative-seen', 'lvis-both', 'lvis-frequency', 'coda-flag',
)  # fmt: skip

_WARNINGS = (
    'no-annotations', 'file-name-twice', 'category-unused',
    'box-empty', 'box-thin', 'box-over', 'box-twice', 'area-zero', 'area-large', 'crowd-polygon',
    'segment-missing', 'lvis-partial-unseen', 'lvis-count',
    'coda-flag-missing', 'coda-period-missing', 'coda-period', 'coda-weather-missing', 'coda-weather',
    'coda-name',
)  # fmt: skip

CODES: MappingProxyType[str, Severity] = MappingProxyType(
    {**dict.fromkeys(_ERRORS, 'error'), **dict.fromkeys(_WARNINGS, 'warning')}
)
"""Code -> severity."""
