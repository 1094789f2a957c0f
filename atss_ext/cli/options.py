"""The options that training and testing share, and the config they lead to."""

import argparse
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from atss_ext.cli.merge import merge_options
from atss_ext.datasets.checks import nearest
from atss_ext.errors import UserError, first_line


class CfgOptions(DictAction):
    """mmengine's ``key=value`` pairs; one that cannot be read is named."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Parse the pairs one by one."""
        for pair in [values] if isinstance(values, str) else values or []:
            key, equals, _ = pair.partition('=')
            if not equals or not key or '' in key.split('.'):
                raise UserError(
                    f"--cfg-options '{pair}' is no key=value pair; write for example "
                    'model.bbox_head.num_classes=3, with no blank around the ='
                )
            if any(pair.count(opening) != pair.count(closing) for opening, closing in ('()', '[]')):
                raise UserError(
                    f"--cfg-options '{pair}' cannot be read; close every bracket, without blanks between"
                )
            super().__call__(parser, namespace, [pair], option_string)


def base_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of mmdet's commands that training and testing share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or package::path below its configs, as in _base_')
    parser.add_argument('--work-dir', help='where logs, checkpoints and results go')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='key=value pairs merged into the config; a list is key="[a,b]" or key=a,b, without blanks',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes the second spelling, older ones the first.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def load_config(args: argparse.Namespace, amp: bool = False) -> Config:
    """Read the config and apply ``--cfg-options``, ``--amp``, ``--launcher`` and ``--work-dir``.

    The work directory is, in this order, that of the command line, that of the config, and
    ``work_dirs/<name of the config>``.

    Args:
        args: of a parser made by :func:`base_parser`.
        amp: whether ``--amp`` was given, which brings keys of its own.

    Raises:
        UserError: the config cannot be read, or an option fits nothing in it.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    path = config_path(args.config)
    cfg = read_config(path)
    merge_options(cfg, args.cfg_options or {}, amp)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('.', 'work_dirs', Path(path).stem)
    return cfg


def config_path(name: str) -> str:
    """Return the file of a config, which may be written ``package::path`` as in ``_base_``."""
    if '::' in name:
        try:
            name = Config._get_cfg_path(name, '')[0]
        except Exception as error:
            raise UserError(
                f'config {name} cannot be found ({first_line(error)}); correct its name'
            ) from None
    if not os.path.isfile(name):
        folder = Path(name).parent
        others = [entry.name for entry in folder.glob('*.py')] if folder.is_dir() else []
        raise UserError(
            f'config file {name} does not exist{nearest(Path(name).name, others)}; correct its path'
        )
    return name


def read_config(path: str) -> Config:
    """Read a config file.

    Raises:
        UserError: it, or one it inherits from, is missing or wrong.
    """
    try:
        return Config.fromfile(path)
    except Exception as error:
        raise UserError(
            f'config {path}{_place(error, path)} cannot be read ({type(error).__name__}: '
            f'{first_line(error)}); correct the config'
        ) from error


def _place(error: Exception, path: str) -> str:
    """Return where a config went wrong: a line of its own, or of a module that it imports."""
    if isinstance(error, SyntaxError):
        return f', line {error.lineno}'
    last = traceback.extract_tb(error.__traceback__)[-1]
    if os.path.abspath(last.filename) == os.path.abspath(path):
        return f', line {last.lineno}'
    elsewhere = os.path.isfile(last.filename) and f'{os.sep}mmengine{os.sep}' not in last.filename
    return f' ({last.filename}, line {last.lineno})' if elsewhere else ''
