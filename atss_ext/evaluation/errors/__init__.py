"""What a detector gets wrong: kinds of errors, confusions, curves, sizes, frequencies, worst images."""

from atss_ext.evaluation.errors.breakdown import by_frequency, by_size
from atss_ext.evaluation.errors.confusion import confusion_matrix, most_confused
from atss_ext.evaluation.errors.curves import RECALLS, average_precision, mean_curve, precision_curves
from atss_ext.evaluation.errors.figures import ErrorReport, error_report, figures
from atss_ext.evaluation.errors.kinds import Kind, Kinds, Outcome, classify
from atss_ext.evaluation.errors.matching import Matching, match
from atss_ext.evaluation.errors.results import Detections, read_detections
from atss_ext.evaluation.errors.truth import Truth, read_truth
from atss_ext.evaluation.errors.worst import worst_images

__all__ = [
    'RECALLS',
    'Detections',
    'ErrorReport',
    'Kind',
    'Kinds',
    'Matching',
    'Outcome',
    'Truth',
    'average_precision',
    'by_frequency',
    'by_size',
    'classify',
    'confusion_matrix',
    'error_report',
    'figures',
    'match',
    'mean_curve',
    'most_confused',
    'precision_curves',
    'read_detections',
    'read_truth',
    'worst_images',
]
