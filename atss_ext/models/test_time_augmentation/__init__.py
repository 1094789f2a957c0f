"""Detections of several views of an image, merged into one list."""

from atss_ext.models.test_time_augmentation.atss_tta import ATSSTTA

__all__ = ['ATSSTTA']
