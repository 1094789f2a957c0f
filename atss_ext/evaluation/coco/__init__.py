"""COCO's figures and class-agnostic recall, by pycocotools or by hotcoco: the same numbers, faster."""

from atss_ext.evaluation.coco.agnostic import AgnosticRecall
from atss_ext.evaluation.coco.backends import Backend, Curves, fast_available, score
from atss_ext.evaluation.coco.figures import agnostic_recall, coco_figures
from atss_ext.evaluation.coco.metric import CocoMetric
from atss_ext.evaluation.coco.table import Found, Truth, read_truth

__all__ = [
    'AgnosticRecall',
    'Backend',
    'CocoMetric',
    'Curves',
    'Found',
    'Truth',
    'agnostic_recall',
    'coco_figures',
    'fast_available',
    'read_truth',
    'score',
]
