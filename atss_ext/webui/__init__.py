"""The web page of ``tools/webui.py``: what it offers, what stands behind each tab, and the page itself.

Only :mod:`atss_ext.webui.page` and :mod:`atss_ext.webui.serving` import gradio. Nothing that comes from a
browser names a file of the server: configs and checkpoints are picked from lists of the command line.
"""

from atss_ext.webui.offer import Offer
from atss_ext.webui.uploads import Limits

__all__ = ['Limits', 'Offer']
