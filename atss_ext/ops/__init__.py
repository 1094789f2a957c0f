"""The only door to native code; knows neither mmdet nor mmengine."""

from atss_ext.ops.native import aligned_box_iou, available
from atss_ext.ops.reference import Assignment, atss_assign, ignored_priors

__all__ = ['Assignment', 'aligned_box_iou', 'atss_assign', 'available', 'ignored_priors']
