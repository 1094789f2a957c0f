"""Checks of segmentations: polygons and run lengths, compressed or not."""

from typing import Any

from atss_ext.datasets.annotation_checks.table import Finding, Table, found
from atss_ext.datasets.segmentation import FAR, MAX_OUTLINE, Code, segmentation_faults

_MESSAGES: dict[Code, str] = {
    'segment-form': 'the segmentation is neither a list of polygons nor run lengths with size and counts',
    'polygon-odd': 'a polygon has an odd number of coordinates',
    'polygon-short': 'a polygon has less than three points (six numbers)',
    'polygon-number': 'a polygon has a coordinate that is no finite number',
    'polygon-far': f"a polygon reaches {FAR} times its image's longer side; drawing it can end a process",
    'polygon-long': f'the outlines of the polygons are over {MAX_OUTLINE} pixels long, and are not drawn',
    'rle-size': "the run lengths' size is not [height, width] of the image",
    'rle-counts': 'the run lengths are damaged: negative, or not as many pixels as the image',
}


def check_segmentations(table: Table) -> list[Finding]:
    """Check every segmentation of a file; one without any is fine. Of each the first fault is reported."""
    rows: dict[Code, list[int]] = {code: [] for code in _MESSAGES}
    segmentations = [annotation.get('segmentation') for annotation in table.annotations]
    missing = [row for row, one in enumerate(segmentations) if one is None or one == []]
    lacking = set(missing)
    there = [row for row in range(len(segmentations)) if row not in lacking]
    of_images = [*map(_whole, table.sizes.tolist()), None]  # the last one for annotations without an image
    images = table.image_rows.tolist()
    sizes = (of_images[images[row]] for row in there)
    for place, fault in segmentation_faults((segmentations[row] for row in there), sizes):
        rows[fault.code].append(there[place])
    ids = table.annotation_ids
    findings: list[Finding] = []
    if there:
        message = 'the annotation has no segmentation while others have one; masks cannot be trained on it'
        findings += found('segment-missing', message, ids, missing)
    for code, message in _MESSAGES.items():
        findings += found(code, message, ids, rows[code])
    return findings


def _whole(size: list[Any]) -> tuple[int, int] | None:
    """Height and width of a width and a height; None where the file does not say them in whole pixels."""
    width, height = size
    return (int(height), int(width)) if width % 1 == height % 1 == 0 else None
