"""The demo: draws a small world, trains a small ATSS on it, evaluates it and shows what it learned.

    python tools/demo.py                       # some five minutes on two cores
    python tools/demo.py --epochs 1 --train-images 48 --val-images 24

Interrupted, it goes on after the last finished epoch when started again with the same settings. Finished,
it evaluates and draws again without training; --fresh trains anew.
"""

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
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
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from atss_ext.cli.errors import run_tool
from atss_ext.datasets import ShapesSpec, write_coco
from atss_ext.errors import UserError
from atss_ext.visualization import ProgressHook
from atss_ext.visualization.demo_pages import draw_pages
from atss_ext.visualization.progress import duration

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'demo' / 'atss_r18_shapes.py'
_STEPS = 4


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Draw a world, train a small ATSS on it, evaluate it, show it.'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='of all results')
    parser.add_argument('--data-root', type=Path, default=Path('data/shapes'), help='of the drawn images')
    parser.add_argument('--epochs', type=_positive, help="the default is the config's")
    parser.add_argument('--train-images', type=_positive, default=800)
    parser.add_argument('--val-images', type=_positive, default=200)
    parser.add_argument('--seed', type=_natural, default=0, help='of the world and of the training')
    parser.add_argument('--cpu-threads', type=_positive, help="the default is torch's choice")
    parser.add_argument('--fresh', action='store_true', help='train anew where a training is there already')
    return parser.parse_args(argv)


def _natural(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f'must be an integer of at least {least}, but is {text}')
    return int(text)


def _positive(text: str) -> int:
    return _natural(text, least=1)


class Stage:
    """What the demo says to people, and how long its steps take."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.started = self._spoke = time.monotonic()
        self.seconds: dict[str, float] = {}

    def say(self, words: str = '') -> None:
        """Write one line."""
        self.stream.write(words + '\n')
        self.stream.flush()

    @contextlib.contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """Announce a step and time it."""
        self.say(f'[{len(self.seconds) + 1}/{_STEPS}] {what}')
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began

    def count(self, done: int, total: int) -> None:
        """Say how many images are drawn, now and then."""
        now = time.monotonic()
        if done == total or now - self._spoke > 3:
            self._spoke = now
            self.say(f'  {done}/{total} images')


@contextlib.contextmanager
def messages_to(path: Path) -> Iterator[None]:
    """Keep what libraries print and warn of out of sight, in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w') as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


def keep_freed_memory() -> None:
    """Let glibc reuse the feature maps' memory: handing it back costs a page fault each 4 KB."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, its greatest value


def draw_world(args: argparse.Namespace, stage: Stage) -> None:
    """Write the two splits, or find them."""
    for split, count in (('train', args.train_images), ('val', args.val_images)):
        workers = min(8, os.cpu_count() or 1)
        write_coco(args.data_root, split, count, ShapesSpec(), args.seed, workers, stage.count)
    stage.say(
        f'  {args.train_images} training and {args.val_images} validation images lie in {args.data_root}'
    )


def load_config(args: argparse.Namespace) -> Config:
    """The demo's config with the command line's choices."""
    cfg = Config.fromfile(CONFIG)
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].dataset.data_root = f'{args.data_root}/'
    for part in ('val', 'test'):
        cfg[f'{part}_evaluator'].ann_file = str(args.data_root / 'val' / 'annotations.json')
    cfg.test_evaluator.update(format_only=True, outfile_prefix=str(args.work_dir / 'detections'))
    if args.epochs:
        cfg.train_cfg.max_epochs = args.epochs
        for scheduler in cfg.param_scheduler:
            if 'T_max' in scheduler:
                scheduler.update(T_max=args.epochs, end=args.epochs)
    cfg.randomness.seed = args.seed
    cfg.work_dir = str(args.work_dir / 'training')
    return cfg


def claim_training(folder: Path, settings: dict[str, Any], fresh: bool, stage: Stage) -> None:
    """Make the folder of the training, or keep one of the same settings.

    Raises:
        UserError: the folder holds what is not the demo's.
    """
    marker = folder / 'settings.json'
    if folder.exists() and any(folder.iterdir()):
        if not marker.is_file():
            raise UserError(f"{folder} holds files that are not the demo's: choose another --work-dir")
        same = marker.read_text() == json.dumps(settings, sort_keys=True)
        if same and not fresh:
            return
        reason = 'as --fresh says' if same else 'as the settings are not those of the last training'
        stage.say(f'  starting over, {reason}')
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(marker, json.dumps(settings, sort_keys=True))


def train(cfg: Config, stage: Stage) -> tuple[Runner, str]:
    """Train, go on training, or load what is trained; return the runner and which of these it was."""
    last = find_latest_checkpoint(cfg.work_dir)
    cfg.load_from = last if last and Path(last).is_file() else None
    done = int(Path(cfg.load_from).stem.removeprefix('epoch_')) if cfg.load_from else 0
    finished = done == cfg.train_cfg.max_epochs
    cfg.resume = bool(cfg.load_from) and not finished
    runner = Runner.from_cfg(cfg)
    runner.model = runner.model.to(memory_format=torch.channels_last)  # a tenth faster on a CPU
    if finished:
        stage.say('  trained already with these settings; --fresh trains anew')
        return runner, 'before'
    threads = torch.get_num_threads()
    where = 'a GPU' if next(runner.model.parameters()).is_cuda else f'{threads} CPU threads'
    stage.say(
        f'  {cfg.train_cfg.max_epochs} epochs on {where}' + (f', going on after epoch {done}' if done else '')
    )
    runner.register_hook(ProgressHook(stream=stage.stream))
    runner.train()
    return runner, f'from epoch {done} on' if done else 'now'


def evaluate(runner: Runner, annotations: Path, detections: Path) -> dict[str, float]:
    """Detect on the validation images, save the detections, and score the file with pycocotools."""
    runner.test()
    if json.loads(detections.read_text()) == []:  # which pycocotools cannot load
        return {'AP': 0.0, 'AP50': 0.0, 'AP75': 0.0}
    truth = COCO(str(annotations))
    scorer = COCOeval(truth, truth.loadRes(str(detections)), 'bbox')
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    return dict(zip(('AP', 'AP50', 'AP75'), map(float, scorer.stats), strict=False))


def times_of_training(folder: Path, trained: str, stage: Stage) -> dict[str, Any]:
    """How long the run that trained took, data and pictures included; it is kept beside its training.

    Args:
        folder: of the training.
        trained: as :func:`train` says it.
        stage: of this run, whose times are taken unless it found everything trained.

    Returns:
        ``minutes`` in all, ``seconds`` of every step, and ``minutes_of``, which run that is.
    """
    kept = folder / 'times.json'
    if trained == 'before' and kept.is_file():
        return json.loads(kept.read_text())
    times = {'minutes': (time.monotonic() - stage.started) / 60, 'seconds': stage.seconds}
    if trained == 'before':  # the run that trained was stopped before its end
        return {**times, 'minutes_of': 'this run, which did not train'}
    times['minutes_of'] = 'the run that trained' if trained == 'now' else f'the run that trained {trained}'
    _write_whole(kept, json.dumps(times))
    return times


def report(summary: dict[str, Any], args: argparse.Namespace, stage: Stage) -> None:
    """End with a short table."""
    steps = ', '.join(f'{name} {duration(seconds)}' for name, seconds in summary['seconds'].items())
    rows = [(name, f'{summary[name]:.3f}') for name in ('AP', 'AP50', 'AP75')]
    rows.append(('images', f'{summary["images"]} evaluated, {summary["train_images"]} trained on'))
    rows.append(('minutes', f'{summary["minutes"]:.1f} ({steps})'))
    if summary['trained'] != 'now':
        rows.append(('trained', f'{summary["trained"]}: minutes are of {summary["minutes_of"]}'))
    rows += [('pictures', path) for path in summary['pictures']]
    rows += [(name, summary[name]) for name in ('checkpoint', 'detections')]
    rows += [
        ('summary', str(args.work_dir / 'summary.json')),
        ('messages', str(args.work_dir / 'messages.log')),
    ]
    stage.say()
    for name, value in rows:
        stage.say(f'{name:<11}{value}')


def run(args: argparse.Namespace, stage: Stage) -> None:
    """All steps of the demo."""
    if args.cpu_threads:
        torch.set_num_threads(args.cpu_threads)
    keep_freed_memory()
    with stage.step('data', 'drawing the shapes world'):
        draw_world(args, stage)
    settings: dict[str, Any] = {
        name: getattr(args, name) for name in ('train_images', 'val_images', 'seed', 'epochs')
    }
    config = Config.fromfile(CONFIG).pretty_text + repr(ShapesSpec())
    settings['config'] = hashlib.sha256(config.encode()).hexdigest()
    with stage.step('training', 'training ATSS, ResNet-18, from scratch'):
        claim_training(args.work_dir / 'training', settings, args.fresh, stage)
        runner, trained = train(load_config(args), stage)
    with stage.step('evaluation', f'evaluating on {args.val_images} images it has not seen'):
        detections = args.work_dir / 'detections.bbox.json'
        scores = evaluate(runner, args.data_root / 'val' / 'annotations.json', detections)
    with stage.step('pictures', 'drawing pictures'):
        pictures = draw_pages(args.work_dir / 'pictures', runner, args.data_root / 'val', detections)
    summary = {
        **scores,
        **times_of_training(args.work_dir / 'training', trained, stage),
        'images': args.val_images,
        'train_images': args.train_images,
        'seed': args.seed,
        'trained': trained,
        'pictures': [str(path) for path in pictures],
        'checkpoint': find_latest_checkpoint(str(args.work_dir / 'training')),
        'detections': str(detections),
    }
    _write_whole(args.work_dir / 'summary.json', json.dumps(summary, indent=1))
    report(summary, args, stage)


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f'.{path.name}.partial')
    partial.write_text(text)
    os.replace(partial, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo, with libraries' messages kept aside."""
    args = parse_args(argv)
    stage = Stage(sys.stdout)
    try:
        with messages_to(args.work_dir / 'messages.log'):
            run(args, stage)
    except KeyboardInterrupt:
        stage.say('\ninterrupted; the same command goes on after the last finished epoch')
        sys.exit(130)


if __name__ == '__main__':
    sys.exit(run_tool(main))
