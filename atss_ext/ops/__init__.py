"""The only door to native code; knows neither mmdet nor mmengine."""

from atss_ext.ops.assignment import atss_assign, center_topk
from atss_ext.ops.attention import attention_products
from atss_ext.ops.box_iou import aligned_box_iou, batched_box_iou
from atss_ext.ops.grid import GridLevel, find_grid
from atss_ext.ops.native import available
from atss_ext.ops.predictions import dynamic_k_assign, task_aligned_assign
from atss_ext.ops.reference import (
    AlignedAssignment,
    Assignment,
    AttentionProducts,
    Candidates,
    DynamicAssignment,
    IoUMode,
    Targets,
    assign_candidates,
    ignored_priors,
)
from atss_ext.ops.targets import gather_targets

__all__ = [
    'AlignedAssignment',
    'Assignment',
    'AttentionProducts',
    'Candidates',
    'DynamicAssignment',
    'GridLevel',
    'IoUMode',
    'Targets',
    'aligned_box_iou',
    'assign_candidates',
    'atss_assign',
    'attention_products',
    'available',
    'batched_box_iou',
    'center_topk',
    'dynamic_k_assign',
    'find_grid',
    'gather_targets',
    'ignored_priors',
    'task_aligned_assign',
]
