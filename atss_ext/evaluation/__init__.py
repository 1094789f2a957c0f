"""Metrics of the scope atss_ext."""

from atss_ext.evaluation.open_ended_results import OpenEndedResults

__all__ = ['OpenEndedResults']
