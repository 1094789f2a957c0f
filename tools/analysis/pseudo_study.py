"""A detector trained on VL-SAM's labels beside one trained on true ones: table of docs/pseudo_labels.md.

    python tools/analysis/pseudo_study.py
    python tools/analysis/pseudo_study.py --train-images 24 --val-images 12 --epochs 1 --seeds 1

Both learn from the same images of the small world with the same schedule, and are scored on the true labels
of images that nobody has seen. Every image's VL-SAM result and every finished training is kept; interrupted
or killed, the same command goes on with what is left.
"""

import argparse
import copy
import hashlib
import os
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch: threads that wait by spinning take the cores they wait for, on a busy machine tenfold.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from _paper_report import put_section
from _paper_runs import Run, last_words, make_run, perform
from mmengine.config import Config

from atss_ext.cli.errors import run_tool
from atss_ext.cli.open_ended import Job, run_job
from atss_ext.cli.options import read_config
from atss_ext.datasets import write_coco
from atss_ext.datasets.checks import read_coco
from atss_ext.errors import UserError
from atss_ext.evaluation.errors.matching import NOTHING, match
from atss_ext.evaluation.errors.results import read_detections
from atss_ext.evaluation.errors.truth import read_truth
from atss_ext.pseudo_labels import (
    FilterOptions,
    LabelOptions,
    make_pseudo_labels,
    read_found,
    write_pseudo_labels,
)
from atss_ext.visualization.progress import duration
from atss_ext.vlsam.world.scenes import SPEC

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SEED = 0
"""Of the drawn images; the small models have learned from none of them, as theirs have another."""


@dataclass(frozen=True)
class Labels:
    """Labels of the training images.

    Attributes:
        row: for people.
        file: a COCO file.
        boxes: how many.
        precision: share of the boxes that are right, by class and IoU 0.5.
        recall: share of the objects that a box is right for.
    """

    row: str
    file: Path
    boxes: int
    precision: float
    recall: float


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/pseudo_study'), help='of all runs')
    parser.add_argument('--out', type=Path, help='markdown file; the table in it is replaced')
    parser.add_argument('--seeds', type=int, default=3, help='trainings of every row')
    parser.add_argument('--epochs', type=int, help="the default is the config's")
    parser.add_argument('--train-images', type=int, default=400)
    parser.add_argument('--val-images', type=int, default=300)
    parser.add_argument('--score-thr', type=float, default=0.5, help='of the row with filtered labels')
    args = parser.parse_args(argv)
    for name in ('seeds', 'epochs', 'train_images', 'val_images'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f'--{name.replace("_", "-")} is {value}; it must be at least 1')
    args.command = (
        f'python tools/analysis/pseudo_study.py {shlex.join(sys.argv[1:] if argv is None else argv)}'
    )
    return args


def draw(args: argparse.Namespace) -> tuple[Path, Path]:
    """The two splits of the small world."""
    root, workers = args.work_dir / 'world', min(8, os.cpu_count() or 1)
    counts = {'train': args.train_images, 'val': args.val_images}
    train, val = (write_coco(root, name, count, SPEC, SEED, workers) for name, count in counts.items())
    return train, val


def look(args: argparse.Namespace, train: Path) -> dict[str, Any]:
    """What VL-SAM finds in the training images.

    Raises:
        UserError: it failed on some.
    """
    job = Job(
        source=train / 'images', out=args.work_dir / 'vlsam',
        config=str(CONFIGS / 'vlsam' / 'vlsam_world.py'), vlm=None, segmenter=None, pictures=False,
    )  # fmt: skip
    failed = run_job(job)
    if failed:
        raise UserError(f'VL-SAM failed on {failed} images; {job.out}/errors.log says why')
    return read_found(job.out / 'annotations.json')


def label(args: argparse.Namespace, train: Path, found: dict[str, Any]) -> list[Labels]:
    """The labels that are compared: the true ones, all that VL-SAM gives, and what it is surer of."""
    truth = train / 'annotations.json'
    rows = [_scored('true labels', truth, truth)]
    kinds = {
        'all': ("VL-SAM's labels, all", FilterOptions()),
        'filtered': (
            f"VL-SAM's labels, --score-thr {args.score_thr:g} --nms-iou 0.5",
            FilterOptions(score_thr=args.score_thr, nms_iou=0.5),
        ),
    }
    for name, (row, filters) in kinds.items():
        options = LabelOptions(
            merge_map={one: [] for one in SPEC.category_names}, others='drop', all_classes=True,
            filters=filters, empty='keep', val_fraction=0.0,
        )  # fmt: skip
        labels = make_pseudo_labels(found, options)
        folder = write_pseudo_labels(labels, args.work_dir / 'labels' / name, train / 'images')
        rows.append(_scored(row, folder / 'train.json', truth))
    return rows


def _scored(row: str, file: Path, truth_file: Path) -> Labels:
    """How right the labels of a file are."""
    truth = read_truth(read_coco(truth_file), str(truth_file))
    ids = {Path(image['file_name']).name: image['id'] for image in truth.images}
    content = read_coco(file)
    of_image = {image['id']: ids[Path(image['file_name']).name] for image in content['images']}
    results = [
        {
            'image_id': of_image[one['image_id']],
            'category_id': one['category_id'],
            'bbox': one['bbox'],
            'score': one.get('score', 1.0),
        }
        for one in content['annotations']
    ]
    matching = match(truth, read_detections(results, truth, str(file)))
    right = int((matching.found != NOTHING).sum())
    return Labels(row, file, len(results), right / max(1, len(results)), right / max(1, len(truth.image)))


def training(args: argparse.Namespace, labels: Labels, train: Path, val: Path) -> Config:
    """The config of configs/pseudo on some labels of the training images and the truth of the others."""
    cfg = copy.deepcopy(read_config(str(CONFIGS / 'pseudo' / 'atss_r18_shapes_pseudo.py')))
    splits = {'train': (labels.file, train), 'val': (val / 'annotations.json', val)}
    for name, (file, folder) in splits.items():
        loader = cfg[f'{name}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(ann_file=str(file), data_prefix={'img': f'{folder}/images/'})
        loader.dataset.metainfo = {'classes': SPEC.category_names}
    cfg.val_evaluator.ann_file = str(splits['val'][0])
    cfg.model.bbox_head.num_classes = len(SPEC.category_names)
    epochs = args.epochs or cfg.train_cfg.max_epochs
    # Scored once, by the run itself, when it is trained.
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs + 1)
    cfg.param_scheduler[1].update(end=epochs, T_max=epochs)
    cfg.default_hooks.checkpoint = {'type': 'CheckpointHook', 'interval': epochs, 'save_optimizer': False}
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg', 'data_root', 'images', 'classes'):
        cfg.pop(key, None)
    return cfg


def plan(args: argparse.Namespace, rows: Sequence[Labels], train: Path, val: Path) -> list[Run]:
    """All runs, every row with a seed before any with the next."""
    truth = (val / 'annotations.json').read_bytes()
    digests = [hashlib.sha256(labels.file.read_bytes() + truth).hexdigest() for labels in rows]
    configs = [training(args, labels, train, val) for labels in rows]
    return [
        make_run(labels.row, cfg, seed, digest, args.work_dir / 'runs')
        for seed in range(args.seeds)
        for labels, cfg, digest in zip(rows, configs, digests, strict=True)
    ]


def make_runs(runs: Sequence[Run]) -> None:
    """Make the runs that are not there yet.

    Raises:
        UserError: one failed.
    """
    for number, run in enumerate(runs, start=1):
        if run.result is None:
            print(f'[{number}/{len(runs)}] {run.row}, seed {run.seed}: training in {run.folder}', flush=True)
            result = perform(run)
            if result is None:
                raise UserError(
                    f'{run.row}, seed {run.seed}, failed ({last_words(run)}); its log: {run.folder}/log.txt'
                )
            print(f'  AP {result["AP"]:.1f} after {duration(result["seconds"])}', flush=True)


def markdown(args: argparse.Namespace, rows: Sequence[Labels], runs: Sequence[Run]) -> str:
    """The table, and the command that makes it."""
    lines = [
        '| labels of the training images | boxes | precision | recall | AP | AP50 | AP75 |',
        '|---|--:|--:|--:|--:|--:|--:|',
    ]
    for labels in rows:
        results = [run.result for run in runs if run.row == labels.row and run.result]
        cells = [_cell([result[name] for result in results]) for name in ('AP', 'AP50', 'AP75')]
        quality = f'{100 * labels.precision:.1f} | {100 * labels.recall:.1f}'
        lines.append(f'| {labels.row} | {labels.boxes} | {quality} | {" | ".join(cells)} |')
    seconds = sum(run.result['seconds'] for run in runs if run.result)
    epochs = runs[0].cfg.train_cfg.max_epochs
    words = (
        f'{args.train_images} training images, {epochs} epochs, scored on the true labels of '
        f'{args.val_images} other images; seeds 0 to {args.seeds - 1}, mean and standard deviation. '
        'Precision and recall are of the labels themselves, against the true ones of the same images, by '
        'class at IoU 0.5. '
        f'{len(runs)} trainings, {duration(seconds)} in all, without the time of VL-SAM.'
    )
    return '\n'.join([*lines, '', words, '', '```bash', args.command.strip(), '```', ''])


def _cell(values: Sequence[float]) -> str:
    if not values:
        return '-'
    spread = f' &plusmn; {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, look, label, train, and write the table."""
    args = parse_args(argv)
    train, val = draw(args)
    rows = label(args, train, look(args, train))
    runs = plan(args, rows, train, val)
    make_runs(runs)
    text = markdown(args, rows, runs)
    out = args.out or args.work_dir / 'table.md'
    put_section(out, 1, text)
    print(f'{text}\nwritten: {out}')


if __name__ == '__main__':
    sys.exit(run_tool(main, resume='the same command goes on with what is left'))
