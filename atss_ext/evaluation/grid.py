"""Where COCO and LVIS look: the IoU thresholds and the ranges of areas, the same in both."""

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU thresholds, [T]."""

AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""Lowest and highest area of all, small, medium and large objects, [A, 2], square pixels; both count."""
