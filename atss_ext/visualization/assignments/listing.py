"""Every object of an image with its positives, for a file of JSON."""

from collections.abc import Sequence
from typing import Any

from atss_ext.visualization.assignments.explaining import AssignedImage


def unlearned_first(images: Sequence[AssignedImage]) -> list[int]:
    """Gts of an image by number, from 0, those that one of its assignments gives no positive first.

    Args:
        images: one or more assignments of the same image.
    """
    without = [False] * len(images[0].boxes)
    for image in images:
        won = image.positives.sum(1).tolist()
        without = [lost or not count for lost, count in zip(without, won, strict=True)]
    return sorted(range(len(without)), key=lambda number: not without[number])


def object_rows(image: AssignedImage) -> list[dict[str, Any]]:
    """Every gt, those without a positive first.

    Returns:
        by gt: ``object``, its number on the picture, from 1; ``name``; ``box``, xyxy in pixels of the resized
        image; ``area``, in pixels of the file; ``threshold``, the IoU from which ATSS takes a candidate, None
        for other assigners; ``positives``, and how many of them on each level: ``by_level``.
    """
    by_level = image.positives.tolist()
    thresholds = [None] * len(by_level) if image.thresholds is None else image.thresholds.tolist()
    return [
        {
            'object': 1 + number,
            'name': image.names[number],
            'box': image.boxes[number].tolist(),
            'area': float(image.areas[number]),
            'threshold': thresholds[number],
            'positives': sum(by_level[number]),
            'by_level': by_level[number],
        }
        for number in unlearned_first([image])
    ]
