"""What is wrong with a COCO, LVIS or CODA annotation file: everything at once, counted, in seconds.

:mod:`atss_ext.datasets.checks` stops a run at the first fault its dataset would trip over. Here a whole file
is looked through instead, whoever reads it later. Needs neither mmdet nor torch.
"""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from atss_ext.datasets.annotation_checks.boxes import check_boxes, check_crowds
from atss_ext.datasets.annotation_checks.coda import check_coda, looks_like_coda
from atss_ext.datasets.annotation_checks.images import Progress, check_images, image_names
from atss_ext.datasets.annotation_checks.lvis import LISTS, check_lvis
from atss_ext.datasets.annotation_checks.segments import check_segmentations
from atss_ext.datasets.annotation_checks.table import (
    Finding,
    Table,
    found,
    make_finding,
    read_table,
    section_of,
)
from atss_ext.datasets.checks import DataError, parse_json

__all__ = ['Finding', 'Kind', 'Report', 'check_annotations', 'check_file', 'detect_kind', 'read_annotations']

Kind = Literal['coco', 'lvis', 'coda']


@dataclasses.dataclass(frozen=True)
class Report:
    """What a file holds and what is wrong with it.

    Attributes:
        kind: what it was checked as.
        counts: images, images without an annotation, annotations, crowds, categories.
        findings: errors first, each by how often it occurs.
    """

    kind: Kind
    counts: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many kinds of errors there are."""
        return sum(finding.severity == 'error' for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many kinds of warnings there are."""
        return len(self.findings) - self.errors

    def as_dict(self) -> dict[str, Any]:
        """The report in types that JSON has."""
        return {**dataclasses.asdict(self), 'errors': self.errors, 'warnings': self.warnings}


def read_annotations(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Parse an annotation file.

    Raises:
        DataError: it is missing, is no JSON, or is something else than annotations.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f'annotation file {path} does not exist; correct the path')
    content = parse_json(path, str(path))
    if isinstance(content, list) and content and isinstance(content[0], dict) and 'score' in content[0]:
        raise DataError(
            f'{path} is a list of detections with scores, not an annotation file; name the other one'
        )
    if not isinstance(content, dict) or not isinstance(content.get('images'), list):
        raise DataError(f"{path} has no list 'images'; a file in the format of COCO, LVIS or CODA is needed")
    return content


def detect_kind(content: Mapping[str, Any]) -> Kind:
    """Tell by its content what a file is.

    LVIS: an image has a federated list, or a category a frequency. CODA: an annotation says
    ``corner_case``, or the categories are CODA's. COCO: anything else.
    """
    images, annotations, categories = (
        [item for item in section_of(content, name) if isinstance(item, dict)]
        for name in ('images', 'annotations', 'categories')
    )
    if any(key in image for image in images for key in LISTS) or any('frequency' in c for c in categories):
        return 'lvis'
    return 'coda' if looks_like_coda(annotations, categories) else 'coco'


def check_annotations(
    content: Mapping[str, Any],
    kind: Kind | None = None,
    images: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look for everything that is wrong with a parsed annotation file.

    Args:
        content: the file (:func:`read_annotations`).
        kind: what it is meant to be; None tells by its content.
        images: folder of the images; None does not look at them.
        progress: called with (images done, all images) while they are looked at.

    Raises:
        ValueError: another kind than 'coco', 'lvis' or 'coda'.
        DataError: the folder of the images does not exist.
    """
    if kind is None:
        kind = detect_kind(content)
    elif kind not in get_args(Kind):
        raise ValueError(f"kind must be 'coco', 'lvis' or 'coda', but is {kind!r}.")
    folder = None if images is None else Path(images)
    if folder is not None and not folder.is_dir():
        raise DataError(f'image folder {folder} does not exist; correct the path')
    table, findings = read_table(content)
    findings += _check_names(table)
    crowds = 0
    if table.annotations:
        findings += _check_use(table) + check_boxes(table) + check_segmentations(table)
        crowd_findings, crowds = check_crowds(table, needed=kind != 'lvis')
        findings += crowd_findings
    findings += {'coco': lambda _: [], 'lvis': check_lvis, 'coda': check_coda}[kind](table)
    if folder is not None:
        findings += check_images(table, folder, progress)
    return Report(kind, _counts(table, crowds), _ordered(findings))


def check_file(
    path: str | os.PathLike[str],
    content: Mapping[str, Any],
    kind: Kind | None = None,
    images: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look for what is wrong with a file, and with how its text is written.

    Args:
        path: the file.
        content: what is in it (:func:`read_annotations`).
        kind: see :func:`check_annotations`, likewise all others and the errors.
        images: of the images.
        progress: of the images.
    """
    report = check_annotations(content, kind, images, progress)
    with open(path, 'rb') as file:
        encoding = json.detect_encoding(file.read(4))
    if encoding == 'utf-8':
        return report
    what = 'begins with a byte order mark' if encoding == 'utf-8-sig' else f'is in {encoding.upper()}'
    message = f'the file {what}, which pycocotools and mmdet do not read; save it as plain UTF-8'
    findings = _ordered([*report.findings, make_finding('encoding', 1, message)])
    return dataclasses.replace(report, findings=findings)


def _ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: (finding.severity, -finding.count)))


def _counts(table: Table, crowds: int) -> dict[str, int]:
    annotated = np.unique(table.image_rows[table.image_rows >= 0])
    return {
        'images': len(table.images),
        'images without annotations': len(table.images) - len(annotated),
        'annotations': len(table.annotations),
        'crowds': crowds,
        'categories': len(table.categories),
    }


def _check_names(table: Table) -> list[Finding]:
    """Check file names and category names."""
    firsts = [next(image_names(image), None) for image in table.images]
    message = "the image has neither 'file_name' nor 'coco_url'"
    findings = found('file-name', message, table.image_ids, [i for i, n in enumerate(firsts) if n is None])
    message = 'another image has the same file name'
    findings += found('file-name-twice', message, table.image_ids, _repeated(firsts))
    names = [category.get('name') for category in table.categories]
    bad = [row for row, name in enumerate(names) if not isinstance(name, str) or not name]
    findings += found('category-name', 'the category has no name', table.category_ids, bad)
    names = [name if isinstance(name, str) and name else None for name in names]
    message = 'another category has the same name; mmdet numbers labels by names'
    findings += found('category-name-twice', message, table.category_ids, _repeated(names))
    if not table.images:
        findings.append(make_finding('no-image', 1, "'images' is empty"))
    return findings


def _repeated(names: list[str | None]) -> list[int]:
    """Return the rows whose name stood in an earlier row."""
    if len(set(names)) == len(names):
        return []
    seen: Counter[str] = Counter()
    rows = []
    for row, name in enumerate(names):
        if name is not None:
            if seen[name]:
                rows.append(row)
            seen[name] += 1
    return rows


def _check_use(table: Table) -> list[Finding]:
    used = np.zeros(len(table.categories), bool)
    used[table.category_rows[table.category_rows >= 0]] = True
    return found('category-unused', 'the category has no annotation', table.category_ids, ~used)
