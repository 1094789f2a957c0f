"""Strips a checkpoint to weights, config and class names: one safetensors file to share.

python tools/publish.py work_dirs/atss_r50_fpn_1x_coco/epoch_12.pth --out atss_r50.safetensors
python tools/publish.py atss_r50.safetensors --print-config
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from atss_ext.cli import UserError, run_tool
from atss_ext.cli.options import config_path, read_config
from atss_ext.cli.runner import require
from atss_ext.cli.targets import check_target
from atss_ext.compat.published import read_metadata
from atss_ext.deploy import publish


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Strip a checkpoint to weights, config and class names.')
    parser.add_argument('checkpoint', help='a file that training wrote')
    parser.add_argument('--config', help="the model's config; else the text that the checkpoint keeps")
    parser.add_argument('--out', type=Path, metavar='FILE', help='the .safetensors file')
    parser.add_argument(
        '--hash-name', action='store_true', help='put the first eight digits of the hash into the name'
    )
    parser.add_argument(
        '--print-config', action='store_true', help='print the config of a published file instead'
    )
    args = parser.parse_args(argv)
    if args.out is None and not args.print_config:
        raise UserError('--out is missing; name the file to write, such as --out model.safetensors')
    return args


def print_config(path: str) -> None:
    """Print the config of a published file.

    Raises:
        UserError: it has none.
    """
    if not Path(path).is_file():
        raise UserError(f'checkpoint {path} does not exist; correct the path')
    try:
        text = read_metadata(path).get('config')
    except UnpicklingError as error:
        raise UserError(str(error)) from None
    if text is None:
        raise UserError(f'{path} holds no config: it was not written by tools/publish.py')
    print(text, end='')


def main(argv: Sequence[str] | None = None) -> None:
    """Publish."""
    args = parse_args(argv)
    if args.print_config:
        print_config(args.checkpoint)
        return
    check_target('--out', args.out, args.checkpoint)
    cfg = read_config(config_path(args.config)) if args.config else None
    if cfg is not None:
        require(cfg, 'model')
    done = publish(args.checkpoint, args.out, cfg, args.hash_name)
    print(f'{done.path}: {done.tensors} tensors, {done.numbers:,} numbers, {len(done.classes)} classes')
    print(f'sha256 of the weights: {done.sha256}')


if __name__ == '__main__':
    sys.exit(run_tool(main, resume='nothing was written'))
