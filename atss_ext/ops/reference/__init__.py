"""Every op in plain PyTorch: public, readable, the fallback where no native code runs, and its oracle.

Letters: B images, T gts of the batch (packed), N priors, L levels, C candidates. Half precision is computed
in float32, because 11 bits cannot order the distances of a large image.
"""

from atss_ext.ops.reference.assignment import (
    Assignment,
    BoxOverlap,
    assign_candidates,
    atss_assign,
    ignored_priors,
)
from atss_ext.ops.reference.attention import AttentionProducts, attention_products
from atss_ext.ops.reference.boxes import (
    IoUMode,
    aligned_box_iou,
    batched_box_iou,
    box_centers,
    compute_dtype,
    gt_image_ids,
    without_gradient,
)
from atss_ext.ops.reference.candidates import Candidates, center_topk
from atss_ext.ops.reference.dynamic_k import CostRule, DynamicAssignment, dynamic_k_assign
from atss_ext.ops.reference.predictions import AlignedAssignment, task_aligned_assign, widest_dtype
from atss_ext.ops.reference.targets import Targets, gather_targets

__all__ = [
    'AlignedAssignment',
    'Assignment',
    'AttentionProducts',
    'BoxOverlap',
    'Candidates',
    'CostRule',
    'DynamicAssignment',
    'IoUMode',
    'Targets',
    'aligned_box_iou',
    'assign_candidates',
    'atss_assign',
    'attention_products',
    'batched_box_iou',
    'box_centers',
    'center_topk',
    'compute_dtype',
    'dynamic_k_assign',
    'gather_targets',
    'gt_image_ids',
    'ignored_priors',
    'task_aligned_assign',
    'widest_dtype',
    'without_gradient',
]
