"""Assignment and open-ended discovery for MMDetection.

Importing the package lets mmdet run on an environment without compiled mmcv
(:mod:`atss_ext.compat`) and does nothing else: modules register themselves when
mmengine first asks the scope ``atss_ext`` for one of them.
"""

from atss_ext import compat as _compat
from atss_ext.version import __version__

_compat.apply()

__all__ = ['__version__']
