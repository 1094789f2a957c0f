"""Writes the config that trains ATSS on a COCO data set of your own.

python tools/datasets/make_config.py train.json val.json --images images --out my_atss.py
python tools/datasets/make_config.py train.json val.json --images train val --small --out my_atss.py

It inherits ATSS with ResNet-50 and weights from ImageNet (a GPU's work), with --small a ResNet-18 from
scratch on small images, which a CPU trains, or the config named by --base.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from atss_ext.cli.errors import note, run_tool
from atss_ext.cli.targets import check_target
from atss_ext.datasets.annotation_checks import read_annotations
from atss_ext.datasets.own_config import own_config
from atss_ext.errors import UserError

BASE = 'atss_ext::atss/atss_r50_fpn_1x_coco.py'
SMALL_BASE = 'atss_ext::demo/atss_r18_bccd.py'
FEW = 100  # of so many images, an epoch of the small base has a dozen steps, and its warm-up five times that


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Write a config for a COCO data set of your own.')
    parser.add_argument('train', type=Path, help='COCO annotation file to train on')
    parser.add_argument('val', type=Path, help='COCO annotation file to validate and test on')
    parser.add_argument(
        '--images', type=Path, nargs='+', required=True, help='folder of the images; two: of train and val'
    )
    parser.add_argument('--out', type=Path, required=True, help='the config to write (.py)')
    base = parser.add_mutually_exclusive_group()
    base.add_argument('--base', default=BASE, help=f'config to inherit from (default: {BASE})')
    base.add_argument(
        '--small', dest='base', action='store_const', const=SMALL_BASE, help=f'inherit {SMALL_BASE}'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the config and say how to use it."""
    args = parse_args(argv)
    if len(args.images) > 2:
        raise UserError(f'--images takes one folder or two (of train and val), got {len(args.images)}')
    for folder in args.images:
        if not folder.is_dir():
            raise UserError(f'--images {folder} is no folder; name the folder that holds the images')
    if args.out.suffix != '.py':
        raise UserError(f'--out {args.out} must end in .py: a config is a Python file')
    check_target('--out', args.out, args.train, args.val)
    text = own_config(args.base, args.train, args.images[0], args.val, args.images[-1])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    count = len(read_annotations(args.train)['images'])
    if count < FEW:
        note(
            f'{args.train} has {count} images, of which a detector learns little; label some hundred'
            + (
                ", or leave --small away for a network with ImageNet's weights"
                if args.base == SMALL_BASE
                else ''
            )
        )
    print(f'wrote {args.out}; next:\npython tools/train.py {args.out}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
