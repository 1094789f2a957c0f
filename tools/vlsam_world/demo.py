"""The VL-SAM demo: the whole method on a laptop, offline, with small models that come with the package.

    python tools/vlsam_world/demo.py                # two minutes on two cores
    python tools/vlsam_world/demo.py --scenes 8

Scenes that the models have never seen are drawn; the vision-language model names what it sees, its attention
prompts the SAM, and every step of the method is switched on in turn. It ends with the table of the steps and
a sheet of pictures.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

# Before torch: threads that wait by spinning take the cores they wait for, on a busy machine tenfold.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
import torch
from ablation import CONFIG, SHIPPED, build_pipeline, run, write
from ablation_table import markdown, plain
from pages import make_folder

from atss_ext.cli.errors import run_tool
from atss_ext.datasets.shapes import Scene
from atss_ext.datasets.shapes_coco import split_seed
from atss_ext.datasets.shapes_drawing import PALETTE
from atss_ext.visualization.open_ended_sheet import SheetRow, draw_open_ended_sheet
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.world.scenes import SEED, SPEC, scene_of

SPLIT = 'held-out'
_PICTURES, _SCORE = 8, 0.3


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Run VL-SAM with the small models of the package, step by step.'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo-vlsam'), help='of all results')
    parser.add_argument('--scenes', type=_positive, default=50, help='the first of the held-out ones')
    parser.add_argument('--cpu-threads', type=_positive, help="the default is torch's choice")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f'must be an integer from 1 to 1,000,000, but is {text}')
    return int(text)


class Progress:
    """Says how far the scenes are, now and then.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.began, self.spoke = stream, time.monotonic(), 0.0

    def say(self, words: str) -> None:
        """Write one line."""
        self.stream.write(words + '\n')
        self.stream.flush()

    def __call__(self, done: int, total: int) -> None:
        """Scenes done, of all."""
        now = time.monotonic()
        if done == total or now - self.spoke > 5:
            self.spoke = now
            left = (now - self.began) / done * (total - done)
            self.say(f'  {done}/{total} scenes' + (f', {left:.0f} s left' if done < total else ''))


@contextlib.contextmanager
def messages_to(path: Path) -> Iterator[None]:
    """Keep what libraries print and warn of out of sight, in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w') as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


def draw_sheet(path: Path, scenes: Sequence[Scene], found: Sequence[Detections]) -> Path:
    """Write the pictures of the first scenes that hold anything."""
    rows = []
    for number, (scene, one) in enumerate(zip(scenes, found, strict=True)):
        if len(rows) < _PICTURES and scene.names:
            rows.append(_sheet_row(number, scene, one))
    note = (
        f'Left: the truth. Then what VL-SAM found with a score of at least {_SCORE:g}, and the attention '
        'behind the best; the dot is its peak.'
    )
    colours = {name: PALETTE[name.split()[0]] for name in SPEC.category_names}
    draw_open_ended_sheet(path, rows, 'VL-SAM on scenes it has never seen', note, colours)
    return path


def _sheet_row(number: int, scene: Scene, found: Detections) -> SheetRow:
    best = found.select(_distinct(found))
    assert best.maps is not None
    return SheetRow(
        f'scene {number}',
        scene.image,
        scene.boxes,
        scene.names,
        best.boxes,
        best.masks,
        best.names,
        best.scores,
        best.maps,
    )


def _distinct(found: Detections) -> list[int]:
    """Detections to show: of several of one name at one place (views, questions, stages) the largest."""
    areas = [int(found.mask(index).sum()) for index in range(len(found))]
    shown: list[int] = []
    for index in sorted(range(len(found)), key=lambda index: -areas[index]):
        if found.scores[index] >= _SCORE and not any(_same(found, index, other) for other in shown):
            shown.append(index)
    return sorted(shown)


def _same(found: Detections, one: int, other: int) -> bool:
    """Whether two detections of one name lie at one place: the smaller is covered by half at least."""
    if found.names[one] != found.names[other]:
        return False
    a, b = found.mask(one), found.mask(other)
    return bool((a & b).sum() >= 0.5 * min(a.sum(), b.sum()))


def summarise(table: dict[str, Any], seconds: float, pictures: Path) -> dict[str, Any]:
    """What ``summary.json`` holds."""
    return {
        'names_precision': table['names']['precision'],
        'names_recall': table['names']['recall'],
        'oracle_ratio': table['oracle_ratio'],
        'paper_ratio': table['paper_ratio'],
        'rows': table['rows'],
        'scenes': table['scenes'],
        'split': SPLIT,
        'seed': split_seed(SEED, SPLIT),
        'seconds': seconds,
        'pictures': str(pictures),
    }


def demonstrate(args: argparse.Namespace, progress: Progress) -> None:
    """All of it."""
    started = time.monotonic()
    if args.cpu_threads:
        torch.set_num_threads(args.cpu_threads)
    progress.say(f'[1/3] loading the small models and drawing {args.scenes} scenes')
    pipeline = build_pipeline(CONFIG)
    scenes = [scene_of(SPLIT, index) for index in range(args.scenes)]
    progress.say('[2/3] looking at them with every step of VL-SAM switched on in turn')
    progress.began = time.monotonic()
    ablation = run(pipeline, scenes, progress=progress)
    table = ablation.table()
    progress.say('[3/3] drawing pictures')
    pictures = draw_sheet(args.work_dir / 'pictures.png', scenes, ablation.found[SHIPPED])
    summary = summarise(table, time.monotonic() - started, pictures)
    write(args.work_dir / 'summary.json', json.dumps(summary, indent=1) + '\n')
    write(args.work_dir / 'table.md', markdown(table) + '\n')
    progress.say('\n' + plain(table))
    for name, value in (
        ('seconds', f'{summary["seconds"]:.0f}'),
        ('pictures', pictures),
        ('summary', args.work_dir / 'summary.json'),
        ('messages', args.work_dir / 'messages.log'),
    ):
        progress.say(f'{name:<10}{value}')


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo, with libraries' messages kept aside."""
    args = parse_args(argv)
    progress = Progress(sys.stdout)
    make_folder(args.work_dir)
    try:
        with messages_to(args.work_dir / 'messages.log'):
            demonstrate(args, progress)
    except KeyboardInterrupt:
        progress.say('\ninterrupted; the same command starts again')
        sys.exit(130)


if __name__ == '__main__':
    sys.exit(run_tool(main))
