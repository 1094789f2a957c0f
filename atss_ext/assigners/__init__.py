"""How priors are assigned to gts."""

from atss_ext.assigners.atss import ATSSAssigner
from atss_ext.assigners.base import BatchAssigner, BatchAssignment, PackedGts, assign_batch

__all__ = ['ATSSAssigner', 'BatchAssigner', 'BatchAssignment', 'PackedGts', 'assign_batch']
