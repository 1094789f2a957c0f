"""The objects of a CODA file, and result files of them, as columns by name."""

import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.annotation_checks.coda import (
    CODA_AGNOSTIC,
    CODA_BASE_COMMON,
    CODA_COMMON,
    is_base_file,
    is_corner_case,
)
from atss_ext.datasets.checks import DataError, read_coco
from atss_ext.evaluation.annotations import ID, is_id
from atss_ext.evaluation.coco.result_file import Results, check_results, found_of
from atss_ext.evaluation.coco.table import Found, Truth, truth_of

Layout = Literal['base', '2022']

OTHER = 'other'
"""Stands for every name that is no common class."""


@dataclass(frozen=True)
class CodaTruth(Truth):
    """The G objects of a file, whose categories are the common classes and, behind them, all others as one.

    Attributes:
        corners: bool [G], which objects are corner cases.
        layout: 'base' or '2022'.
        named: False for the official class-agnostic files, whose objects have no names.
    """

    corners: NDArray[np.bool_]
    layout: Layout
    named: bool

    @property
    def common(self) -> NDArray[np.bool_]:
        """Which objects are of a common class, bool [G]."""
        return self.categories < self.other

    @property
    def other(self) -> int:
        """The number of all names that are no common class."""
        return len(self.names)


def read_coda(
    ann_file: str | os.PathLike[str], layout: Layout | None = None, masks: bool = False
) -> CodaTruth:
    """Read an annotation file.

    Args:
        ann_file: of the base benchmark or of CODA2022.
        layout: which of both; None tells by the file's name, which is corner_case.json in the base benchmark.
        masks: read the segmentations too, which every object then needs.

    Raises:
        DataError: the file cannot be used, has an annotation of an image or a category it does not have, or
            a ``corner_case`` that is no flag.
    """
    base = is_base_file(str(ann_file), layout)
    content = read_coco(ann_file)
    plain = truth_of(content, ann_file, masks=masks)
    kinds = (*(CODA_BASE_COMMON if base else CODA_COMMON), OTHER)
    numbers = [kinds.index(name) + 1 if name in kinds else len(kinds) for name in plain.names]
    names = [plain.names[number - 1] for number in plain.categories.tolist()]
    corners = [
        is_corner_case(entry, name, base, str(ann_file))
        for entry, name in zip(content['annotations'], names, strict=True)
    ]
    columns = {
        **vars(plain),
        'names': list(kinds),
        'category_numbers': {key: numbers[place - 1] for key, place in plain.category_numbers.items()},
        'categories': np.array([0, *numbers], np.int64)[plain.categories],
    }
    return CodaTruth(
        **columns,
        corners=np.array(corners, bool),
        layout='base' if base else '2022',
        named=set(plain.names) != {CODA_AGNOSTIC},
    )


def check_coda_results(
    results: Results, path: str | os.PathLike[str], truth: CodaTruth, metrics: Sequence[str] = ('bbox',)
) -> int:
    """Refuse results that cannot be scored.

    CODA's own result files have the ids 1 to 43 for every annotation file: ids that a file does not have are
    of other classes. Files without names need no ids.

    Args:
        results: the rows.
        path: the result file, for messages.
        truth: the objects they will be compared with.
        metrics: 'bbox' and 'segm' as needed.

    Returns:
        how many rows have an id that the file does not have.

    Raises:
        DataError: at the first row that cannot be scored.
    """
    check_results(results, path, truth.image_numbers, None, truth.ann_file, metrics)
    if not truth.named:
        return 0
    unknown = 0
    for place, row in enumerate(results):
        category: Any = row.get('category_id')
        if isinstance(row.get('name'), str) or (is_id(category) and category in truth.category_numbers):
            continue
        if not is_id(category):
            shown = reprlib.repr(category)
            raise DataError(f'detection {place} of {path} has the category_id {shown}, which {ID}')
        # Labels counted from 0 would be scored as their neighbours.
        if isinstance(category, str) or category < 1:
            raise DataError(
                f'detection {place} of {path} has the category_id {category!r}, which {truth.ann_file} does '
                "not have; write CODA's ids, which start from 1, or names"
            )
        unknown += 1
    return unknown


def named_found(results: Results, truth: CodaTruth, masks: bool) -> Found:
    """Checked results as columns, by name: a row's own, or that of its category.

    Ids that the file does not have are of other classes; so is everything where the file has no names.

    Args:
        results: the rows.
        truth: the objects they are compared with.
        masks: whether masks are needed.
    """
    numbers = truth.number_of_class
    rows = []
    for row in results:
        name = row.get('name')
        if not truth.named:
            number = truth.other
        elif isinstance(name, str):
            number = numbers.get(name, truth.other)
        else:
            number = truth.category_numbers.get(row['category_id'], truth.other)
        rows.append({**row, 'category_id': number})
    return found_of(rows, truth, {number: number for number in numbers.values()}, masks)
