"""Dense heads."""

from atss_ext.models.dense_heads.atss_head import ATSSHead

__all__ = ['ATSSHead']
