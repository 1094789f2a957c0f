"""Segmenters: what turns points into masks. Importing this needs no library of models."""

from atss_ext.vlsam.segmenter.predictor_segmenter import PredictorSegmenter
from atss_ext.vlsam.segmenter.transformers_segmenter import TransformersSegmenter

__all__ = ['PredictorSegmenter', 'TransformersSegmenter']
