"""Train a detector: mmdet's command with mmdet's options, and errors in one sentence."""

import argparse
import sys
from collections.abc import Sequence

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from atss_ext.cli import UserError, base_parser, build_runner, load_config, note, run_tool
from atss_ext.cli.preflight import check_data
from atss_ext.cli.restarts import continues, may_start_again
from atss_ext.cli.runner import join_processes, require, require_checkpoint
from atss_ext.compat.published import SUFFIX


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = base_parser('Train a detector')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate by the config's base_batch_size"
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='go on from this checkpoint; without a path, from the latest one of the work directory',
    )
    return parser.parse_args(argv)


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Put ``--auto-scale-lr`` and ``--resume`` into the config.

    Raises:
        UserError: an option that the config gives no ground for.
    """
    if args.auto_scale_lr:
        scale = cfg.get('auto_scale_lr') or {}
        if 'base_batch_size' not in scale:
            raise UserError(
                f'--auto-scale-lr: config {args.config} does not say for which batch size its learning rate '
                'is meant; add auto_scale_lr=dict(base_batch_size=16), or leave the option away'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume:
        if args.resume.endswith(SUFFIX):
            raise UserError(
                f'--resume {args.resume}: a {SUFFIX} file has weights and no optimizer to go on with; start '
                f'from its weights with --cfg-options load_from={args.resume}'
            )
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('load_from'):
        require_checkpoint(cfg.load_from)
    elif cfg.get('resume'):
        _check_latest(cfg.work_dir)


def _check_latest(work_dir: str) -> None:
    latest = find_latest_checkpoint(work_dir)
    if latest is None:
        note(f'--resume: there is no checkpoint in {work_dir} yet, so training starts from the beginning')
        return
    try:
        require_checkpoint(latest)
    except UserError:
        raise UserError(
            f'--resume: {work_dir}/last_checkpoint names {latest}, which does not exist; name the '
            'checkpoint: --resume PATH'
        ) from None


def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    args = parse_args(argv)
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(args, args.amp)
    require(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    apply_options(cfg, args)
    check_data(cfg, 'train_dataloader', *(['val_dataloader'] if cfg.get('val_cfg') else []))
    if may_start_again():
        join_processes(cfg, args.cfg_options)
        if continues(cfg.work_dir):
            cfg.resume, cfg.load_from = True, None
    build_runner(cfg, args.cfg_options).train()


if __name__ == '__main__':
    sys.exit(run_tool(main))
