"""Makes a COCO training set of what VL-SAM finds in a folder of images, or has found.

    python tools/pseudo_label.py photos --config configs/vlsam/vlsam_llava1.5-7b_sam-vit-h.py --score-thr 0.5
    python tools/pseudo_label.py work_dirs/vlsam/photos/annotations.json --classes classes.yaml --min-count 20

OUT gets train.json, val.json and summary.json; images stay where they are. With --config VL-SAM runs first:
each image's result is kept as soon as it is there, and the same command goes on after an interruption.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from atss_ext.cli import UserError, note, run_tool
from atss_ext.cli.open_ended import Job, run_job
from atss_ext.cli.options import CfgOptions
from atss_ext.cli.targets import check_target
from atss_ext.datasets.checks import check_images
from atss_ext.pseudo_labels import (
    FILES,
    FilterOptions,
    LabelOptions,
    check_folder,
    make_pseudo_labels,
    read_found,
    read_merge_map,
    summary_lines,
    write_pseudo_labels,
)
from atss_ext.vlsam.images import is_video

ENCODERS = ('ClipEncoder', 'SentenceEncoder', 'PooledEncoder')
FILTERS = FilterOptions()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make a training set of VL-SAM's output.")
    parser.add_argument(
        'source', type=Path, help='a folder of images, or the annotations.json that tools/vlsam.py wrote'
    )
    parser.add_argument('--out', type=Path, default=Path('data/pseudo'), help='folder of the training set')
    parser.add_argument(
        '--images', type=Path, metavar='DIR', help='of a json: its images; else the folder vlsam.py looked at'
    )
    run = parser.add_argument_group('running VL-SAM', 'on a folder of images; as of tools/vlsam.py')
    run.add_argument('--config', help='a config of configs/vlsam')
    run.add_argument('--device', help='of the models; auto')
    run.add_argument('--recursive', action='store_true', help='look into subfolders too')
    run.add_argument('--restart', action='store_true', help='forget the results of an earlier run in OUT')
    run.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings of the steps, key=value')
    names = parser.add_argument_group('names to classes')
    names.add_argument('--classes', type=Path, metavar='FILE', help="JSON or YAML: 'class: [names]'")
    names.add_argument(
        '--others', choices=('keep', 'drop'), default='keep',
        help='names of no class in FILE: each its own class, or left out',
    )  # fmt: skip
    names.add_argument('--all-classes', action='store_true', help='keep classes of FILE that got no box')
    names.add_argument('--encoder', choices=ENCODERS, help='brings other names to the nearest class of FILE')
    names.add_argument('--encoder-model', help="another model of the encoder's kind: of the hub, or a folder")
    names.add_argument('--encoder-threshold', type=float, help='cosine that the encoder has to reach')
    boxes = parser.add_argument_group('boxes')
    boxes.add_argument('--score-thr', type=float, default=FILTERS.score_thr, help='least confidence (0..1)')
    boxes.add_argument(
        '--class-quantile', type=float, default=FILTERS.class_quantile, metavar='Q',
        help='leave out this share of every class, the least confident (0..1)',
    )  # fmt: skip
    boxes.add_argument('--min-area', type=float, default=FILTERS.min_area, help='of the mask, square pixels')
    boxes.add_argument(
        '--nms-iou', type=float, default=FILTERS.nms_iou,
        help='of boxes of one class that overlap by more, the best stays; %(default)s',
    )  # fmt: skip
    boxes.add_argument('--min-count', type=int, default=FILTERS.min_count, help='boxes a class needs')
    images = parser.add_argument_group('images')
    images.add_argument('--empty', choices=('drop', 'keep'), default='drop', help='images without labels')
    images.add_argument('--val-fraction', type=float, default=0.1, help='for val.json; %(default)s')
    images.add_argument('--seed', type=int, default=0, help='of the split')
    return parser.parse_args(argv)


def label_options(args: argparse.Namespace) -> LabelOptions:
    """What the command line says of labels.

    Raises:
        UserError: a value out of its range, or options that do not go together.
        DataError: the merge map cannot be read.
    """
    if not args.classes:
        chosen = {'--encoder': args.encoder, '--others drop': args.others == 'drop'}
        for option, given in {**chosen, '--all-classes': args.all_classes}.items():
            if given:
                raise UserError(f'{option} needs classes; name a file of them with --classes')
    of_encoder = {'--encoder-model': args.encoder_model, '--encoder-threshold': args.encoder_threshold}
    for option, value in of_encoder.items():
        if value is not None and not args.encoder:
            raise UserError(
                f'{option} {value} is of an encoder; name it with --encoder, or leave {option} away'
            )
    encoder = None
    if args.encoder:
        encoder = {'type': f'atss_ext.{args.encoder}'}
        if args.encoder_model:
            encoder['model'] = args.encoder_model
    merge_map = read_merge_map(args.classes) if args.classes else {}
    try:
        return LabelOptions(
            merge_map=merge_map,
            others=args.others,
            encoder=encoder,
            encoder_threshold=args.encoder_threshold,
            filters=FilterOptions(**{name: getattr(args, name) for name in vars(FILTERS)}),
            empty=args.empty,
            all_classes=args.all_classes,
            val_fraction=args.val_fraction,
            seed=args.seed,
        )
    except ValueError as error:
        raise UserError(f'the options make no sense: {error}') from None


def check_out(args: argparse.Namespace) -> None:
    """Refuse an OUT whose files would be lost, before VL-SAM looks at anything.

    Raises:
        UserError: a file to be written is read as well, or cannot be written.
        DataError: one is there that is no pseudo-label of ours.
    """
    read = [path for path in (args.source, args.classes, args.config) if path]
    for name in FILES:
        check_target(f'--out {args.out}:', args.out / name, *read)
    check_folder(args.out)


def refuse_unused(args: argparse.Namespace) -> None:
    """Refuse what only the other kind of source has a use for.

    Raises:
        UserError: an option that would be without effect.
    """
    if args.source.suffix.lower() != '.json':
        if args.images:
            raise UserError(
                f'--images is for an annotations.json; {args.source} is where the images are: leave it away'
            )
        return
    given = {
        '--config': args.config, '--device': args.device, '--recursive': args.recursive,
        '--restart': args.restart, '--cfg-options': args.cfg_options,
    }  # fmt: skip
    for option, value in given.items():
        if value:
            raise UserError(
                f'{args.source} is what VL-SAM found already; leave {option} away, or name its images'
            )


def find(args: argparse.Namespace) -> tuple[Path, Path, int]:
    """What VL-SAM found, the folder of the images, and how many images failed.

    Raises:
        UserError: it is not said what looks at the source, or where its images are.
    """
    source = args.source
    if source.suffix.lower() != '.json':
        if not args.config:
            raise UserError(f'no config says what looks at {source}; give --config configs/vlsam/NAME.py')
        if is_video(source):
            raise UserError(f'{source} is a video; save its frames as images, and name their folder')
        job = Job(
            source=source, out=args.out / 'vlsam', config=args.config, vlm=None, segmenter=None,
            device=args.device or 'auto', options=args.cfg_options or {}, pictures=False,
            recursive=args.recursive, restart=args.restart,
        )  # fmt: skip
        failed = run_job(job)
        return job.out / 'annotations.json', source if source.is_dir() else source.parent, failed
    return source, args.images or looked_at(source), 0


def looked_at(annotations: Path) -> Path:
    """The folder that tools/vlsam.py looked at, as it noted beside its results.

    Raises:
        UserError: it noted none.
    """
    try:
        source = Path((annotations.parent / 'input.txt').read_text(encoding='utf-8'))
    except OSError:
        raise UserError(
            f'nothing beside {annotations} says where its images are; give --images DIR'
        ) from None
    return source if source.is_dir() else source.parent


def main(argv: Sequence[str] | None = None) -> None:
    """Make the training set; ends with 1 where VL-SAM failed on images."""
    args = parse_args(argv)
    if not args.source.exists():
        raise UserError(
            f'{args.source} does not exist; name a folder of images, or an annotations.json of vlsam.py'
        )
    refuse_unused(args)
    check_out(args)
    options = label_options(args)
    annotations, images, failed = find(args)
    content = read_found(annotations)
    check_images([image['file_name'] for image in content['images']], images, annotations)
    labels = make_pseudo_labels(content, options)
    write_pseudo_labels(labels, args.out, images)
    print('\n'.join([*summary_lines(labels.summary), f'written: {args.out}']))
    if failed:
        note(f'{failed} images failed and are left out; the same command tries them again')
        sys.exit(1)


if __name__ == '__main__':
    sys.exit(run_tool(main, resume='the same command goes on from here'))
