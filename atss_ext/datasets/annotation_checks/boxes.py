"""Checks of boxes, areas and crowd flags.

What is an error and what a warning follows from its readers. mmdet's ``CocoDataset.parse_data_info`` drops
without a word every box thinner than a pixel, without area, or outside its image; pycocotools counts them
all. A negative or infinite number makes the overlaps of pycocotools meaningless.
"""

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.annotation_checks.table import Finding, Table, found, number_rows, numbers

TOLERANCE = 0.02
"""Pixels by which a box may reach over its image unnoticed: both its numbers rounded to two decimals."""


def check_boxes(table: Table) -> list[Finding]:
    """Check boxes, areas, and boxes that are there twice."""
    boxes, malformed = number_rows([annotation.get('bbox') for annotation in table.annotations], 4)
    ids = table.annotation_ids
    findings = found('box-form', 'bbox is not [x, y, width, height], four numbers', ids, malformed)
    finite: NDArray[np.bool_] = np.all(np.isfinite(boxes), axis=1)
    findings += found('box-finite', 'a number of the box is NaN or infinite', ids, ~finite & ~malformed)
    with np.errstate(invalid='ignore'):
        negative = finite & (boxes[:, 2:] < 0).any(axis=1)
        empty = finite & ~negative & (boxes[:, 2:] == 0).any(axis=1)
        thin = finite & ~negative & ~empty & (boxes[:, 2:] < 1).any(axis=1)
    message = 'the box has a negative width or height (COCO boxes are x, y, width, height)'
    findings += found('box-negative', message, ids, negative)
    dropped = 'mmdet drops it from training, evaluation counts it'
    findings += found('box-empty', f'the box has no width or no height; {dropped}', ids, empty)
    findings += found('box-thin', f'the box is thinner than a pixel; {dropped}', ids, thin)
    usable: NDArray[np.bool_] = finite & ~negative
    findings += _check_place(table, boxes, usable)
    findings += _check_areas(table, boxes, usable)
    return findings + _check_repeated(table, boxes, usable)


def check_crowds(table: Table, needed: bool) -> tuple[list[Finding], int]:
    """Check the flags of crowds.

    Args:
        table: the file.
        needed: whether ``iscrowd`` has to be there: pycocotools' ``COCOeval`` reads it without asking;
            LVIS has no crowds.

    Returns:
        what is wrong, and the number of crowds.
    """
    flags = [annotation.get('iscrowd') for annotation in table.annotations]
    odd: list[int] = []
    missing: list[int] = []
    if not set(map(type, flags)) <= {int, bool} or not set(flags) <= {0, 1}:
        missing = [row for row, flag in enumerate(flags) if needed and flag is None]
        odd = [
            row
            for row, flag in enumerate(flags)
            if flag is not None and not (isinstance(flag, int | float) and flag in (0, 1))
        ]
    ids = table.annotation_ids
    findings = found('crowd-missing', "the annotation has no 'iscrowd'; COCOeval stops", ids, missing)
    findings += found('crowd-flag', 'iscrowd is neither 0 nor 1', ids, odd)
    crowds = [row for row, flag in enumerate(flags) if flag == 1]
    polygons = [row for row in crowds if isinstance(table.annotations[row].get('segmentation'), list)]
    polygons = [row for row in polygons if table.annotations[row]['segmentation']]
    message = 'the crowd is drawn with polygons; COCO has run lengths there'
    return findings + found('crowd-polygon', message, ids, polygons), len(crowds)


def _check_place(table: Table, boxes: NDArray[np.float64], usable: NDArray[np.bool_]) -> list[Finding]:
    """Check boxes against their images; ``boxes`` [N, 4], ``usable`` [N]."""
    if not len(table.images):
        return []
    sizes = np.where(table.image_rows[:, None] >= 0, table.sizes[table.image_rows], np.nan)
    with np.errstate(invalid='ignore', over='ignore'):
        ends = boxes[:, :2] + boxes[:, 2:]
        over = np.maximum(-boxes[:, :2], ends - sizes).max(axis=1)  # pixels; NaN without an image
        touching = (boxes[:, 2:] > 0) & ((ends == 0) | (boxes[:, :2] == sizes))
        outside = usable & np.isfinite(over)
        outside &= ((ends < 0) | (boxes[:, :2] > sizes) | touching).any(axis=1)
        partly = usable & (over > TOLERANCE) & ~outside
    findings = found('box-outside', 'the box lies outside of its image', table.annotation_ids, outside)
    if partly.any():
        at_most = int((over[partly] <= 1 + TOLERANCE).sum())
        message = f'the box reaches over the edge of its image, by up to {over[partly].max():g} pixels'
        message += f' ({at_most} of them by no more than one)' if at_most else ''
        findings += found('box-over', message, table.annotation_ids, partly)
    return findings


def _check_areas(table: Table, boxes: NDArray[np.float64], usable: NDArray[np.bool_]) -> list[Finding]:
    areas, no_number = numbers(table.annotations, 'area')
    ids = table.annotation_ids
    message = "'area' is missing or no number; mmdet and COCOeval read it (width * height of a plain box)"
    findings = found('area-missing', message, ids, no_number)
    finite = np.isfinite(areas)
    findings += found('area-finite', "'area' is NaN or infinite", ids, ~finite & ~no_number)
    with np.errstate(invalid='ignore', over='ignore'):
        negative, zero = finite & (areas < 0), finite & (areas == 0)
        # A mask covers whole pixels, so that it can reach half a pixel over its polygon on every side.
        large = finite & usable & (areas > (boxes[:, 2] + 1) * (boxes[:, 3] + 1))
    findings += found('area-negative', "'area' is negative", ids, negative)
    message = "'area' is zero; mmdet drops the annotation, evaluation counts it as small"
    findings += found('area-zero', message, ids, zero)
    return findings + found('area-large', "'area' is larger than the box", ids, large)


def _check_repeated(table: Table, boxes: NDArray[np.float64], usable: NDArray[np.bool_]) -> list[Finding]:
    rows = np.flatnonzero(usable & (table.image_rows >= 0) & (table.category_rows >= 0))
    keys = np.column_stack([table.image_rows[rows], table.category_rows[rows], boxes[rows]])
    order = np.lexsort(keys.T[::-1])
    same = np.zeros(len(rows), bool)
    same[order[1:]] = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)  # lexsort keeps the file's order
    message = 'the same box of the same category stands in the image before'
    return found('box-twice', message, table.annotation_ids, rows[same].tolist())
