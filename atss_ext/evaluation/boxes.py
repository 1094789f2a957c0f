"""Boxes as columns: their form in COCO's files, and their areas."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def xywh(corners: NDArray[Any]) -> NDArray[np.float64]:
    """Boxes of two corners, xyxy [N, 4], in COCO's form; a copy. Sides beyond floats are infinite."""
    boxes = corners.astype(np.float64).reshape(-1, 4)
    with np.errstate(over='ignore', invalid='ignore'):
        boxes[:, 2:] -= boxes[:, :2]
    return boxes


def areas_of(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square pixels of boxes, xywh [N, 4]; infinite beyond floats."""
    with np.errstate(over='ignore', invalid='ignore'):
        areas: NDArray[np.float64] = boxes[:, 2] * boxes[:, 3]
    return areas
