"""Models of the scope atss_ext."""

from atss_ext.models.dense_heads import ATSSHead

__all__ = ['ATSSHead']
