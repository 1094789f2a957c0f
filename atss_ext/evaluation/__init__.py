"""Metrics of the scope atss_ext."""

from atss_ext.evaluation.coco import AgnosticRecall, CocoMetric
from atss_ext.evaluation.coda import CodaMetric
from atss_ext.evaluation.lvis import LvisMetric
from atss_ext.evaluation.named_metric import NamedMetric
from atss_ext.evaluation.open_ended_results import OpenEndedResults

__all__ = ['AgnosticRecall', 'CocoMetric', 'CodaMetric', 'LvisMetric', 'NamedMetric', 'OpenEndedResults']
