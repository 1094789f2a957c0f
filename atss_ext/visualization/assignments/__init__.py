"""Which priors an assigner gives to which object: of an image as a picture, of a dataset in numbers."""

from atss_ext.visualization.assignments.comparison import draw_comparison
from atss_ext.visualization.assignments.counting import count_unassigned, table
from atss_ext.visualization.assignments.explaining import AssignedImage, Explainer
from atss_ext.visualization.assignments.listing import object_rows
from atss_ext.visualization.assignments.source import ImageSource

__all__ = [
    'AssignedImage',
    'Explainer',
    'ImageSource',
    'count_unassigned',
    'draw_comparison',
    'object_rows',
    'table',
]
