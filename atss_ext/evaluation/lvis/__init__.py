"""LVIS AP and fixed AP, of boxes and masks, without lvis-api."""

from atss_ext.evaluation.lvis.detections import ImageDetections, from_coco
from atss_ext.evaluation.lvis.figures import lvis_figures
from atss_ext.evaluation.lvis.metric import LvisMetric
from atss_ext.evaluation.lvis.truth import LvisTruth

__all__ = ['ImageDetections', 'LvisMetric', 'LvisTruth', 'from_coco', 'lvis_figures']
