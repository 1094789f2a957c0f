"""Finds, names and segments what is in pictures: VL-SAM for an image, a folder or a video.

    python tools/vlsam.py street.jpg --config configs/vlsam/vlsam_llava1.5-7b_sam-vit-h.py
    python tools/vlsam.py photos/ --vlm Qwen/Qwen2.5-VL-7B-Instruct --segmenter facebook/sam2.1-hiera-large
    python tools/vlsam.py drive.mp4 --every 30 --format coco yolo-boxes yolo-polygons

Each image's result is kept as soon as it is there, below OUT/results; the same command goes on after an
interruption and tries again what failed. tools/dist_vlsam.sh shares a folder among several processes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from atss_ext.cli import UserError, run_tool
from atss_ext.cli.open_ended import FORMATS, Job, join, run_job
from atss_ext.cli.options import CfgOptions
from atss_ext.cli.restarts import failures_code

QUICK = {'questions': 'single', 'corners': False}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Find, name and segment what is in pictures (VL-SAM)')
    parser.add_argument('input', type=Path, help='an image, a folder of images, or a video')
    models = parser.add_argument_group('models', 'a config, or the names (or folders) of two models')
    models.add_argument('--config', help='a config of configs/vlsam, or package::path as in _base_')
    models.add_argument('--vlm', help='vision-language model for transformers')
    models.add_argument('--segmenter', help='SAM, SAM-HQ, SAM 2 or EdgeTAM for transformers')
    models.add_argument(
        '--device', default='auto', help="cuda, cuda:1, cpu; 'auto' takes a GPU if there is one"
    )
    parser.add_argument('--out', type=Path, help='folder of the results; work_dirs/vlsam/<name of the input>')
    parser.add_argument(
        '--format',
        nargs='+',
        choices=FORMATS,
        default=['coco'],
        help='what to export: COCO json with masks, YOLO labels of boxes or of polygons',
    )
    parser.add_argument('--maps', action='store_true', help='keep the attention maps and show them')
    parser.add_argument('--no-pictures', action='store_true', help='draw no overlay pictures')
    parser.add_argument('--score-thr', type=float, help='least confidence (0..1) that is kept')
    parser.add_argument('--question', action='append', help='ask this instead; repeatable')
    parser.add_argument(
        '--quick', action='store_true', help='one question, the whole image only: 50 times less work'
    )
    parser.add_argument('--recursive', action='store_true', help='look into subfolders too')
    parser.add_argument('--every', type=int, help='of a video, every Nth frame; one a second if left away')
    parser.add_argument('--restart', action='store_true', help='forget the results of an earlier run in OUT')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='settings of the steps as key=value, such as refine.feedback=0 or prompts.threshold=0.6',
    )
    args = parser.parse_args(argv)
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail after the models are loaded.

    Raises:
        UserError: options that do not fit together, or a value out of range.
    """
    if not args.input.exists():
        raise UserError(f'{args.input} does not exist; name an image, a folder of images or a video')
    if args.config and (args.vlm or args.segmenter):
        raise UserError(
            '--config names both models; leave --vlm and --segmenter away, or leave --config away'
        )
    if not args.config and not (args.vlm and args.segmenter):
        raise UserError(
            'no models are named; give --config configs/vlsam/NAME.py, or --vlm and --segmenter together'
        )
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        raise UserError(f'--score-thr {args.score_thr} must be from 0 to 1')
    if args.every is not None and args.every < 1:
        raise UserError(f'--every {args.every} must be at least 1')


def settings(args: argparse.Namespace) -> dict[str, object]:
    """What the command line says of the steps."""
    chosen: dict[str, object] = dict(QUICK) if args.quick else {}
    if args.question:
        chosen['questions'] = args.question
    if args.score_thr is not None:
        chosen['score_thr'] = args.score_thr
    if args.maps:
        chosen['keep_maps'] = True
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    """Run VL-SAM; ends with 1 where images failed."""
    args = parse_args(argv)
    job = Job(
        source=args.input,
        out=args.out or Path('work_dirs/vlsam') / args.input.resolve().stem,
        config=args.config,
        vlm=args.vlm,
        segmenter=args.segmenter,
        device=args.device,
        settings=settings(args),
        options=args.cfg_options or {},
        formats=tuple(args.format),
        pictures=not args.no_pictures,
        recursive=args.recursive,
        every=args.every,
        restart=args.restart,
    )
    failed = run_job(job, join(args.launcher))
    if failed:
        sys.exit(failures_code())


if __name__ == '__main__':
    sys.exit(run_tool(main, resume='the same command goes on from here'))
