"""An annotation file as columns, so that its checks are array operations; and what a check finds.

Letters: M images, N annotations, K categories. Annotations keep their place in the file: row i of every
column is annotation i. What cannot be read as a number is NaN in a column and a finding beside it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.annotation_checks.codes import CODES, Severity

MAX_EXAMPLES = 5
"""How many ids a finding lists."""

_PLURALS = {'image': 'images', 'annotation': 'annotations', 'category': 'categories'}


@dataclass(frozen=True)
class Finding:
    """One kind of fault and where it occurs.

    Attributes:
        code: one of :data:`~atss_ext.datasets.annotation_checks.codes.CODES`, such as 'box-outside'.
        severity: 'error' for what stops a reader or makes figures wrong; 'warning' for what is legal and
            dropped, or hardly meant.
        count: how many images, annotations or categories have it.
        message: what it is, in words.
        examples: ids of the first :data:`MAX_EXAMPLES`, or 'number i' for what has no id.
    """

    code: str
    severity: Severity
    count: int
    message: str
    examples: tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """The columns of a file.

    Attributes:
        images: M objects.
        annotations: N objects.
        categories: K objects.
        image_ids: M ids; 'number i' where there is none.
        annotation_ids: N ids, likewise.
        category_ids: K ids, likewise.
        image_rows: int64 [N], each annotation's row in ``images``; -1 where there is none.
        category_rows: int64 [N], each annotation's row in ``categories``; -1 where there is none.
        sizes: float64 [M, 2], width and height in pixels; NaN where they are no positive numbers.
    """

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    image_ids: list[Any]
    annotation_ids: list[Any]
    category_ids: list[Any]
    image_rows: NDArray[np.int64]
    category_rows: NDArray[np.int64]
    sizes: NDArray[np.float64]


def found(code: str, message: str, ids: Sequence[Any], where: Any) -> list[Finding]:
    """Return the finding of a fault, or nothing where nothing has it.

    Args:
        code: see :class:`Finding`.
        message: see :class:`Finding`.
        ids: ids of everything that was looked at.
        where: a mask over ``ids``, bool array, or an iterable of the rows that have the fault, each once.
    """
    rows = np.flatnonzero(where).tolist() if isinstance(where, np.ndarray) else list(where)
    if not rows:
        return []
    return [make_finding(code, len(rows), message, [ids[row] for row in rows[:MAX_EXAMPLES]])]


def make_finding(code: str, count: int, message: str, examples: Sequence[Any] = ()) -> Finding:
    """Return a finding as bad as its code says; see :class:`Finding`."""
    return Finding(code, CODES[code], count, message, tuple(examples[:MAX_EXAMPLES]))


def read_table(content: Mapping[str, Any]) -> tuple[Table, list[Finding]]:
    """Bring a parsed file into columns.

    Args:
        content: ``images``, ``annotations`` and ``categories``, each a list or absent.

    Returns:
        the table, and what is wrong with lists, ids, references and image sizes.
    """
    findings = _check_sections(content)
    sections: dict[str, list[dict[str, Any]]] = {}
    ids: dict[str, list[Any]] = {}
    for kind, name in _PLURALS.items():
        sections[name] = _objects(section_of(content, name), name, findings)
        ids[name] = _ids(sections[name], kind, findings)
    annotations, annotation_ids = sections['annotations'], ids['annotations']
    rows = [
        _references(annotations, annotation_ids, kind, ids[name], findings)
        for kind, name in (('image', 'images'), ('category', 'categories'))
    ]
    sizes = np.stack([numbers(sections['images'], key)[0] for key in ('width', 'height')], axis=1)
    bad = ~np.all(np.isfinite(sizes) & (sizes > 0), axis=1)
    message = 'the image has no width and height above zero'
    findings += found('image-size', message, ids['images'], bad)
    sizes[bad] = np.nan
    message = "the image's width or height is no whole number; masks on it cannot be scored"
    findings += found('image-fraction', message, ids['images'], ~bad & (sizes != np.rint(sizes)).any(axis=1))
    table = Table(
        **sections,
        image_ids=ids['images'],
        annotation_ids=annotation_ids,
        category_ids=ids['categories'],
        image_rows=rows[0],
        category_rows=rows[1],
        sizes=sizes,
    )
    return table, findings


def numbers(items: Sequence[Mapping[str, Any]], key: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return one field of every object, float64 [N], and which have no number there, [N].

    The first is NaN where there is no number, but also where the file has a NaN.
    """
    values = [item.get(key) for item in items]
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, np.float64).reshape(len(values)), np.zeros(len(values), bool)
        except OverflowError:
            pass  # an integer of hundreds of digits
    plain = [float_of(value) for value in values]
    return np.array([np.nan if v is None else v for v in plain], np.float64), np.array(
        [v is None for v in plain]
    )


def float_of(value: Any) -> float | None:
    """Return a JSON number as a float; None for anything else (true and false too)."""
    if type(value) not in (int, float):
        return None
    try:
        return float(value)
    except OverflowError:
        return float('inf') if value > 0 else float('-inf')


def number_rows(rows: Sequence[Any], width: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return lists of ``width`` numbers each as float64 [N, width], and which are none of that kind, [N]."""
    if set(map(type, rows)) <= {list} and set(map(len, rows)) <= {width}:
        flat = list(chain.from_iterable(rows))
        if set(map(type, flat)) <= {int, float}:
            try:
                return np.array(flat, np.float64).reshape(-1, width), np.zeros(len(rows), bool)
            except OverflowError:
                pass
    values = np.full((len(rows), width), np.nan)
    bad = np.ones(len(rows), bool)
    for row, entry in enumerate(rows):
        plain = [float_of(value) for value in entry] if isinstance(entry, list) else []
        if len(plain) == width and None not in plain:
            values[row], bad[row] = plain, False
    return values, bad


def section_of(content: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list of a file; an empty one where there is something else or nothing."""
    section = content.get(name)
    return section if isinstance(section, list) else []


def _check_sections(content: Mapping[str, Any]) -> list[Finding]:
    bad = [name for name in _PLURALS.values() if name in content and not isinstance(content[name], list)]
    findings = []
    if bad:
        message = 'what stands for images, annotations or categories is no list'
        findings.append(make_finding('section', len(bad), message, bad))
    if 'annotations' not in content:
        message = (
            "there is no 'annotations', as in the list of images of a test set; nothing is scored with it"
        )
        findings.append(make_finding('no-annotations', 1, message))
    return findings


def _objects(section: list[Any], name: str, findings: list[Finding]) -> list[dict[str, Any]]:
    """Return the objects of a list; what is no object is reported and left out."""
    if set(map(type, section)) <= {dict}:
        return section
    bad = [row for row, item in enumerate(section) if not isinstance(item, dict)]
    labels = [f'number {row}' for row in range(len(section))]
    findings += found('no-object', f"an entry of '{name}' is no object", labels, bad)
    return [item for item in section if isinstance(item, dict)]


def _ids(items: list[dict[str, Any]], kind: str, findings: list[Finding]) -> list[Any]:
    ids = [item.get('id') for item in items]
    types = set(map(type, ids))
    if kind != 'annotation' and types >= {int, str}:
        findings += _check_mixed(ids, kind)
    if not types <= {int, str}:
        bad = [row for row, value in enumerate(ids) if type(value) not in (int, str)]
        for row in bad:
            ids[row] = f'number {row}'
        message = f"the {kind}'s id is neither a number nor a text"
        findings += found(f'{kind}-id', message, ids, bad)
    if len(set(ids)) < len(ids):
        twice = {value: count for value, count in Counter(ids).items() if count > 1}
        message = f'several {_PLURALS[kind]} have the same id'
        findings.append(
            make_finding(f'{kind}-id-twice', sum(twice.values()) - len(twice), message, list(twice))
        )
    return ids


def _check_mixed(ids: list[Any], kind: str) -> list[Finding]:
    """Check that ids are of one type: images and categories are scored in order of their ids."""
    rows: dict[type, list[int]] = {str: [], int: []}
    for row, value in enumerate(ids):
        rows.get(type(value), []).append(row)
    message = f'some ids of {_PLURALS[kind]} are numbers and some texts, which have no order to score in'
    return found(f'{kind}-id-mixed', message, ids, min(rows.values(), key=len))


def _references(
    annotations: list[dict[str, Any]],
    annotation_ids: list[Any],
    kind: str,
    ids: list[Any],
    findings: list[Finding],
) -> NDArray[np.int64]:
    """Return the row that each annotation's ``{kind}_id`` names, int64 [N], -1 where it names none."""
    index = {value: row for row, value in enumerate(ids)}
    wanted = [annotation.get(f'{kind}_id') for annotation in annotations]
    if not set(map(type, wanted)) <= {int, str}:
        wanted = [value if type(value) in (int, str) else None for value in wanted]
    rows = np.fromiter((index.get(value, -1) for value in wanted), np.int64, len(wanted))
    lost = np.flatnonzero(rows < 0).tolist()
    message = f"the annotation's {kind}_id is not among '{_PLURALS[kind]}'"
    texts = set(map(str, index))
    if any(str(wanted[row]) in texts for row in lost):
        message += ' (a number stands as a text, or a text as a number)'
    findings += found(f'unknown-{kind}', message, annotation_ids, lost)
    return rows
