"""How priors are assigned to gts.

Dual weighting (DW, arXiv 2203.09730) is not among the assigners: it gives every prior a positive and a
negative weight of the loss for each gt, where an assigner says which one gt a prior learns, so that it is a
loss.
"""

from atss_ext.assigners.atss import ATSSAssigner
from atss_ext.assigners.base import (
    AssignmentError,
    BatchAssigner,
    BatchAssignment,
    PackedGts,
    Predictions,
    PyramidPriors,
)
from atss_ext.assigners.bbox_overlaps import BboxOverlaps2D
from atss_ext.assigners.calls import assign_batch, needs_predictions
from atss_ext.assigners.cost_atss import CostATSSAssigner
from atss_ext.assigners.dynamic_soft_label import DynamicSoftLabelAssigner
from atss_ext.assigners.max_iou import MaxIoUAssigner
from atss_ext.assigners.ota import OTAAssigner
from atss_ext.assigners.sim_ota import SimOTAAssigner
from atss_ext.assigners.spatial_scale import SpatialScaleAssigner
from atss_ext.assigners.task_aligned import TaskAlignedAssigner
from atss_ext.assigners.top_k import TopKAssigner

__all__ = [
    'ATSSAssigner',
    'AssignmentError',
    'BatchAssigner',
    'BatchAssignment',
    'BboxOverlaps2D',
    'CostATSSAssigner',
    'DynamicSoftLabelAssigner',
    'MaxIoUAssigner',
    'OTAAssigner',
    'PackedGts',
    'Predictions',
    'PyramidPriors',
    'SimOTAAssigner',
    'SpatialScaleAssigner',
    'TaskAlignedAssigner',
    'TopKAssigner',
    'assign_batch',
    'needs_predictions',
]
