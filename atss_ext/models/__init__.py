"""Models of the scope atss_ext."""

from atss_ext.models.dense_heads import ATSSHead
from atss_ext.models.test_time_augmentation import ATSSTTA
from atss_ext.models.wrappers import InferenceWrapper

__all__ = ['ATSSTTA', 'ATSSHead', 'InferenceWrapper']
