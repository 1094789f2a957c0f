"""Show which priors become positive for which object, by one or two configs; or count over a dataset.

python tools/analysis/show_assignment.py CONFIG [CONFIG] --index 3 --out assignment.png
python tools/analysis/show_assignment.py CONFIG [CONFIG] --statistics
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from mmengine.config import Config

from atss_ext.cli.errors import note, run_tool
from atss_ext.cli.images import name_unreadable_images
from atss_ext.cli.options import config_path, read_config
from atss_ext.cli.preflight import check_data
from atss_ext.cli.runner import require_checkpoint
from atss_ext.cli.targets import check_targets, writing
from atss_ext.compat.checkpoints import force_restricted_loading, register_loader
from atss_ext.errors import UserError
from atss_ext.visualization.assignments import (
    AssignedImage,
    Explainer,
    ImageSource,
    count_unassigned,
    draw_comparison,
    object_rows,
    table,
)
from atss_ext.visualization.assignments.counting import figures


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', help='one config, or two to be compared')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--index', type=int, help='place of the image in the dataset, from 0 (the default)')
    which.add_argument('--image', help='file name or path of the image')
    which.add_argument('--statistics', '--dataset', action='store_true', help='count over all images instead')
    parser.add_argument('--ann', help="COCO annotation file; without it the first config's dataset is taken")
    parser.add_argument('--images', help='folder of the images of --ann')
    parser.add_argument(
        '--split', choices=['val', 'train'], default='val', help="which of the config's datasets"
    )
    parser.add_argument('--out', default='assignment.png', help='PNG file to write')
    parser.add_argument('--width', type=int, default=300, help='of one panel of the picture, pixels')
    parser.add_argument(
        '--json', help='file to write all objects of the image to, or the counts of --statistics'
    )
    parser.add_argument('--max-images', type=int, help='count over the first so many')
    parser.add_argument('--checkpoint', nargs='+', default=[], help='weights, one file a config')
    args = parser.parse_args(argv)
    if len(args.configs) > 2:
        raise UserError(f'{len(args.configs)} configs are given; one is shown, or two are compared')
    if len(args.checkpoint) not in (0, len(args.configs)):
        raise UserError(
            f'{len(args.checkpoint)} checkpoints are given for {len(args.configs)} configs; name one for each'
        )
    if args.images and not Path(args.images).is_dir():
        raise UserError(f'image folder {args.images} does not exist; correct --images')
    if args.max_images is not None and args.max_images < 1:
        raise UserError(f'--max-images is {args.max_images}; it must be at least 1')
    if not 100 <= args.width <= 2000:
        raise UserError(f'--width is {args.width}; it must be between 100 and 2000 pixels')
    read = [path for path in (*args.configs, args.ann, args.image, *args.checkpoint) if path]
    check_targets({'--out': None if args.statistics else args.out, '--json': args.json}, read)
    return args


def load_explainers(args: argparse.Namespace, configs: Sequence[Config]) -> list[Explainer]:
    """The assigners of the configs."""
    force_restricted_loading()
    register_loader()
    for path in args.checkpoint:
        require_checkpoint(path)
    checkpoints = args.checkpoint or [None] * len(configs)
    explainers = [Explainer(cfg, path) for cfg, path in zip(configs, checkpoints, strict=True)]
    for explainer, path in zip(explainers, checkpoints, strict=True):
        if explainer.by_predictions and path is None:
            note(
                f'{explainer.assigner_name} of {explainer.name} goes by predictions, here of a random '
                'initial model as at the start of a training; name trained weights by --checkpoint'
            )
    return explainers


def open_source(args: argparse.Namespace, cfg: Config) -> ImageSource:
    """The images that are asked for."""
    if args.ann is None:
        check_data(cfg, f'{args.split}_dataloader')
        return ImageSource(cfg, args.split)
    images = args.images
    if images is None and args.image is None:
        images = str(Path(args.ann).parent)
    return ImageSource(cfg, ann_file=args.ann, image_dir=images)


def show(args: argparse.Namespace, explainers: Sequence[Explainer], source: ImageSource) -> None:
    """Draw one image, and write its objects."""
    info = source.find(args.image) if args.image else source[args.index or 0]
    path = Path(info['img_path'])
    if not path.is_file():
        raise UserError(f'image {path} does not exist; correct --image, or name its folder by --images')
    shown = [
        (f'{one.name} ({one.assigner_name})', one.explain(copy.deepcopy(info), source.classes))
        for one in explainers
    ]
    title = f'Which priors learn which object: {path.name}'
    try:
        draw_comparison(args.out, shown, title, args.width)
    except OSError as error:
        raise UserError(f'{args.out} cannot be written ({error.strerror}); choose another place') from error
    for heading, image in shown:
        won = image.positives.sum(1)
        print(
            f'{heading}: {int(won.sum())} positives for {len(won)} objects, {int((won == 0).sum())} with none'
        )
    print(f'written: {args.out}')
    if args.json:
        write_json(args.json, [listed(one, image) for one, (_, image) in zip(explainers, shown, strict=True)])


def listed(explainer: Explainer, image: AssignedImage) -> dict[str, Any]:
    """What one config does with the objects of an image."""
    names = {'config': explainer.name, 'assigner': explainer.assigner_name}
    return {**names, 'strides': list(image.strides), 'objects': object_rows(image)}


def write_json(path: str, content: Any) -> None:
    """Write a file, and say so."""
    with writing(path) as file:
        file.write(json.dumps(content, indent=1) + '\n')
    print(f'written: {path}')


def explained(explainer: Explainer, source: ImageSource, limit: int) -> Iterator[AssignedImage]:
    """The first images of a source, with a word on progress now and then."""
    spoke = time.monotonic()
    for index in range(limit):
        yield explainer.explain(source[index], source.classes)
        if time.monotonic() - spoke > 10:
            spoke = time.monotonic()
            note(f'{explainer.name}: {index + 1} of {limit} images')


def count(args: argparse.Namespace, explainers: Sequence[Explainer], source: ImageSource) -> None:
    """Count over the dataset."""
    limit = min(len(source), args.max_images or len(source))
    counts = [
        (one.name, one.assigner_name, count_unassigned(explained(one, source, limit))) for one in explainers
    ]
    print(f'{limit} images of {source.where}; sizes of boxes by the limits of COCO, 32 x 32 and 96 x 96 px')
    for line in table(counts):
        print(line)
    if args.json:
        write_json(args.json, figures(counts))


def main(argv: Sequence[str] | None = None) -> None:
    """Show an image, or count over a dataset."""
    args = parse_args(argv)
    configs = [read_config(config_path(path)) for path in args.configs]
    name_unreadable_images()
    explainers = load_explainers(args, configs)
    source = open_source(args, configs[0])
    if args.statistics:
        count(args, explainers, source)
    else:
        show(args, explainers, source)


if __name__ == '__main__':
    sys.exit(run_tool(main))
