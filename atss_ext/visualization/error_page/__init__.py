"""An error report as one HTML file that needs nothing else."""

from atss_ext.visualization.error_page.page import error_page

__all__ = ['error_page']
