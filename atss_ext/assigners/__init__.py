"""How priors are assigned to gts."""

from atss_ext.assigners.atss import ATSSAssigner
from atss_ext.assigners.base import BatchAssigner, BatchAssignment, PackedGts, Predictions
from atss_ext.assigners.bbox_overlaps import BboxOverlaps2D
from atss_ext.assigners.calls import assign_batch, needs_predictions

__all__ = [
    'ATSSAssigner',
    'BatchAssigner',
    'BatchAssignment',
    'BboxOverlaps2D',
    'PackedGts',
    'Predictions',
    'assign_batch',
    'needs_predictions',
]
