"""CODA's categories, and checks of what only CODA has: corner cases, period, weather.

Source: the documentation at https://coda-dataset.github.io and Li et al., *CODA* (ECCV 2022).
"""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from atss_ext.datasets.annotation_checks.table import Finding, Table, found
from atss_ext.datasets.checks import DataError, flag_fault

CODA_COMMON = ('pedestrian', 'cyclist', 'car', 'truck', 'tram', 'tricycle', 'bus')
"""The common categories of CODA2022: ids 1 to 7 there."""

CODA_BASE_COMMON = ('pedestrian', 'cyclist', 'car', 'truck', 'tricycle')
"""The categories of the base benchmark's COMMON figures."""

CODA_CLASSES = (
    *CODA_COMMON,
    'bicycle', 'moped', 'motorcycle', 'stroller', 'wheelchair', 'cart', 'trailer', 'construction_vehicle',
    'recreational_vehicle', 'dog', 'cat', 'barrier', 'bollard', 'warning_sign', 'sentry_box', 'traffic_box',
    'traffic_cone', 'traffic_island', 'traffic_light', 'traffic_sign', 'debris', 'suitcace', 'dustbin',
    'concrete_block', 'machinery', 'chair', 'phone_booth', 'basket', 'cardboard', 'carton', 'garbage',
    'garbage_bag', 'plastic_bag', 'stone', 'tire', 'misc',
)  # fmt: skip
"""CODA2022's 43 categories in order of their ids, 1 to 43, spelled as in its files ('suitcace')."""

CODA_AGNOSTIC = 'corner_case_object'
"""The one category of the official class-agnostic file."""

PERIODS = ('day', 'night')
WEATHERS = ('sunny', 'cloudy', 'rainy')

_SIGNS = 8  # so many categories, all of them CODA's, are no other road data set's


def looks_like_coda(annotations: Iterable[dict[str, Any]], categories: Iterable[dict[str, Any]]) -> bool:
    """Whether a file is CODA's: an annotation says ``corner_case``, or all its categories are CODA's."""
    if any('corner_case' in annotation for annotation in annotations):
        return True
    names = [category.get('name') for category in categories]
    return len(names) >= _SIGNS and all(name in CODA_CLASSES for name in names)


def check_coda(table: Table) -> list[Finding]:
    """Check the fields of a CODA file, of the base benchmark or of 2022."""
    return _check_flags(table) + _check_tags(table) + _check_categories(table)


def _check_flags(table: Table) -> list[Finding]:
    missing, odd = [], []
    for row, annotation in enumerate(table.annotations):
        flag = annotation.get('corner_case')
        if flag is None:
            missing.append(row)
        elif flag_fault(flag, 'corner_case'):
            odd.append(row)
    ids = table.annotation_ids
    findings = found('coda-flag', 'corner_case is neither true nor false', ids, odd)
    if len(missing) < len(table.annotations):
        message = "the annotation has no 'corner_case' while others have; readers have to guess"
        findings += found('coda-flag-missing', message, ids, missing)
    return findings


def _check_tags(table: Table) -> list[Finding]:
    findings: list[Finding] = []
    for key, known in (('period', PERIODS), ('weather', WEATHERS)):
        values = [image.get(key) for image in table.images]
        missing = [row for row, value in enumerate(values) if value is None]
        odd = [row for row, value in enumerate(values) if value is not None and _lower(value) not in known]
        if len(missing) < len(values):
            message = f"the image has no '{key}' while others have"
            findings += found(f'coda-{key}-missing', message, table.image_ids, missing)
        message = f'{key} of the image is none of {", ".join(known)}'
        findings += found(f'coda-{key}', message, table.image_ids, odd)
    return findings


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _check_categories(table: Table) -> list[Finding]:
    names = [category.get('name') for category in table.categories]
    if names == [CODA_AGNOSTIC]:
        return []
    unknown = [row for row, name in enumerate(names) if name not in CODA_CLASSES]
    message = "the category's name is none of CODA's 43"
    return found('coda-name', message, table.category_ids, unknown)


def is_base_file(ann_file: str, layout: str | None = None) -> bool:
    """Whether a file is of the base benchmark, which calls its own ``corner_case.json``.

    Args:
        ann_file: of CODA.
        layout: 'base' or '2022' if it is known; None tells by the file's name.
    """
    return PurePath(ann_file).name.startswith('corner_case') if layout is None else layout == 'base'


def is_corner_case(annotation: Mapping[str, Any], name: str | None, base: bool, ann_file: str) -> bool:
    """Whether an object is a corner case, also where its annotation does not say.

    The base benchmark labels nothing else, and an object of a novel class always is one.

    Args:
        annotation: with or without ``corner_case``.
        name: of its category.
        base: the file is of the base benchmark.
        ann_file: the file, for the message.

    Raises:
        DataError: what it says is neither true nor false.
    """
    flag = annotation.get('corner_case')
    fault = flag_fault(flag, 'corner_case')
    if fault:
        raise DataError(
            f'annotation {annotation.get("id")} of {ann_file} {fault}; '
            'tools/datasets/check_annotations.py lists such faults'
        )
    return bool(flag) if flag is not None else base or name not in CODA_COMMON
