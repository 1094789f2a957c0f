"""Models of the scope atss_ext."""

from atss_ext.models.dense_heads import ATSSHead
from atss_ext.models.wrappers import InferenceWrapper

__all__ = ['ATSSHead', 'InferenceWrapper']
