"""CODA's official figures: of the base benchmark (CORNER, COMMON, NOVEL) and of CODA2022."""

from atss_ext.evaluation.coda.figures import coda_figures
from atss_ext.evaluation.coda.metric import CodaMetric
from atss_ext.evaluation.coda.truth import CodaTruth, Layout, check_coda_results, named_found, read_coda

__all__ = [
    'CodaMetric',
    'CodaTruth',
    'Layout',
    'check_coda_results',
    'coda_figures',
    'named_found',
    'read_coda',
]
