"""COCO's figures and class-agnostic recall, by pycocotools or by hotcoco: the same numbers, faster."""

from atss_ext.evaluation.backend import Backend, fast_available
from atss_ext.evaluation.coco.agnostic import AgnosticRecall
from atss_ext.evaluation.coco.backends import Curves, score
from atss_ext.evaluation.coco.figures import coco_figures, recall_figures
from atss_ext.evaluation.coco.metric import CocoMetric
from atss_ext.evaluation.coco.table import Found, Truth, read_truth

__all__ = [
    'AgnosticRecall',
    'Backend',
    'CocoMetric',
    'Curves',
    'Found',
    'Truth',
    'coco_figures',
    'fast_available',
    'read_truth',
    'recall_figures',
    'score',
]
