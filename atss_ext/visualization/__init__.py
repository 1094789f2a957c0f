"""Pictures of detections, assignments and trainings, and the progress of a run."""

from atss_ext.visualization.assignment import draw_assignment
from atss_ext.visualization.curves import draw_curves, read_scalars
from atss_ext.visualization.detections import Exhibit, draw_detections
from atss_ext.visualization.progress import ProgressHook

__all__ = ['Exhibit', 'ProgressHook', 'draw_assignment', 'draw_curves', 'draw_detections', 'read_scalars']
