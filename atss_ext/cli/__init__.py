"""What the commands in ``tools/`` share: options, checks before the run, errors as sentences."""

import warnings

# What mmengine's own imports say, the second with older torch; users can do nothing about either.
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
warnings.filterwarnings('ignore', message='`TorchScript` support for functional optimizers')

from atss_ext.cli.errors import UserError, note, run_tool  # noqa: E402
from atss_ext.cli.options import base_parser, load_config  # noqa: E402
from atss_ext.cli.runner import build_runner  # noqa: E402

__all__ = ['UserError', 'base_parser', 'build_runner', 'load_config', 'note', 'run_tool']
