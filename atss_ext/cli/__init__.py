"""What the commands in ``tools/`` share: options, checks before the run, errors as sentences."""

import warnings

# mmengine imports it wherever a config inherits from a package; users can do nothing about it.
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
# mmengine imports this, and torch 2.4 then warns past every filter: it only stays quiet the second time.
with warnings.catch_warnings(record=True):
    import torch.distributed.optim  # noqa: F401

from atss_ext.cli.errors import note, run_tool  # noqa: E402
from atss_ext.cli.options import base_parser, load_config  # noqa: E402
from atss_ext.cli.runner import build_runner  # noqa: E402
from atss_ext.errors import UserError  # noqa: E402

__all__ = ['UserError', 'base_parser', 'build_runner', 'load_config', 'note', 'run_tool']
