"""Exports a trained detector to ONNX or torch.export, and compares the file with PyTorch.

python tools/export.py CONFIG CHECKPOINT --format onnx --out detector.onnx --dynamic
python tools/export.py CONFIG CHECKPOINT --format torch-export --out detector.pt2 --size 800 1333
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from atss_ext.cli import run_tool
from atss_ext.cli.merge import merge_options
from atss_ext.cli.options import CfgOptions, config_path, read_config
from atss_ext.cli.runner import require
from atss_ext.cli.targets import check_target
from atss_ext.deploy.checkpoint import read_checkpoint
from atss_ext.deploy.detector import build_detector, dataset_meta_of, load_weights, require_match
from atss_ext.deploy.export import FORMATS, check_format, export
from atss_ext.deploy.images import check_images, check_size, size_of


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Export a trained detector, and compare it with PyTorch.')
    parser.add_argument('config', help='config file, or package::path below its configs, as in _base_')
    parser.add_argument('checkpoint', help='its weights: .pth, or .safetensors of tools/publish.py')
    parser.add_argument('--format', required=True, help=' or '.join(FORMATS))
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='.onnx or .pt2')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('H', 'W'), help="of the image; by default the test pipeline's"
    )
    parser.add_argument('--dynamic', action='store_true', help='images may have any size, not only --size')
    parser.add_argument(
        '--images', nargs='+', default=[], help='pictures to compare on; else scenes of coloured shapes'
    )
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='key=value pairs for the config')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Export."""
    args = parse_args(argv)
    check_format(args.format, args.out)
    check_target('--out', args.out, args.checkpoint, args.config)
    cfg = read_config(config_path(args.config))
    merge_options(cfg, args.cfg_options or {}, False)
    require(cfg, 'model')
    size = check_size(tuple(args.size)) if args.size else size_of(cfg)
    kept = read_checkpoint(args.checkpoint)
    model = build_detector(cfg)
    require_match(model, kept.tensors, args.checkpoint)
    load_weights(model, kept.tensors)
    classes = (kept.dataset_meta or dataset_meta_of(cfg)).get('classes') or ()
    images = check_images(args.images, size, args.dynamic)
    done = export(model, classes, args.format, args.out, size, images, args.dynamic)
    sizes = 'any size' if args.dynamic else f'{size[0]} x {size[1]}'
    print(f'{args.out}: images of {sizes}, {args.out.stat().st_size / 1e6:.1f} MB')
    print(
        f'equals PyTorch on {done.images} images with {done.detections} detections: boxes differ by at most '
        f'{done.box:.2g} px, scores by {done.score:.2g}'
    )


if __name__ == '__main__':
    sys.exit(run_tool(main, resume='nothing was written'))
