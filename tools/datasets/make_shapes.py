"""Draws a world of coloured shapes as a COCO dataset.

python tools/datasets/make_shapes.py --train-images 1000 --val-images 200
python tools/datasets/make_shapes.py --root data/many --colours red,blue --shapes ring,heart --size 320x240
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import atss_ext  # noqa: F401 - lets mmdet run without a compiled mmcv
from atss_ext.cli.errors import run_tool
from atss_ext.datasets import ShapesSpec, write_coco
from atss_ext.errors import UserError


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; the defaults are the demo's world."""
    spec = ShapesSpec()
    parser = argparse.ArgumentParser(description='Draw a world of coloured shapes as a COCO dataset.')
    parser.add_argument('--root', type=Path, default=Path('data/shapes'))
    parser.add_argument('--train-images', type=int, default=1000)
    parser.add_argument('--val-images', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--workers', type=int, default=min(8, os.cpu_count() or 1), help='processes that draw'
    )
    parser.add_argument('--size', type=_size, default=(spec.width, spec.height), metavar='WxH')
    for name in ('colours', 'shapes', 'patterns'):
        parser.add_argument(
            f'--{name}', type=_names, default=getattr(spec, name), help='names, with commas between'
        )
    for name in ('min_objects', 'max_objects', 'min_size', 'max_size', 'clutter'):
        parser.add_argument(f'--{name.replace("_", "-")}', type=int, default=getattr(spec, name))
    for name in ('empty_fraction', 'min_visible', 'rotation', 'skew', 'realism'):
        parser.add_argument(f'--{name.replace("_", "-")}', type=float, default=getattr(spec, name))
    return parser.parse_args(argv)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f'must be WIDTHxHEIGHT, such as 320x240, but is {text}')
    return int(width), int(height)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(','))


def main(argv: Sequence[str] | None = None) -> None:
    """Draw both splits."""
    args = parse_args(argv)
    given = {name: value for name, value in vars(args).items() if name in ShapesSpec.__dataclass_fields__}
    try:
        spec = ShapesSpec(width=args.size[0], height=args.size[1], **given)
        for split, count in (('train', args.train_images), ('val', args.val_images)):
            folder = write_coco(args.root, split, count, spec, args.seed, args.workers, _progress(split))
            print(f'{count} images and annotations.json lie in {folder}', flush=True)
    except (ValueError, FileExistsError) as error:
        raise UserError(str(error)) from None


def _progress(split: str) -> Callable[[int, int], None]:
    def say(done: int, total: int) -> None:
        if sys.stdout.isatty() or done == total:
            print(f'{split}: {done}/{total}', end='\r' if done < total else '\n', flush=True)

    return say


if __name__ == '__main__':
    sys.exit(run_tool(main))
