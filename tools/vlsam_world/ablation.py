"""Measures the steps of VL-SAM one by one on scenes of the small world that nothing was trained or chosen on.

python tools/vlsam_world/ablation.py --json docs/vlsam_world.json --page docs/vlsam_world.md  # as published
python tools/vlsam_world/ablation.py --scenes 50 --json work_dirs/table.json

Every setting runs through the pipeline that users run. What several settings ask of a scene is computed once.
"""

import argparse
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before torch: threads that wait by spinning take the cores they wait for, on a busy machine tenfold.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

# isort: split
import numpy as np
import torch
from ablation_rows import PAPER, Row, paper_rows
from ablation_table import markdown
from mmengine.config import Config
from numpy.typing import NDArray
from pages import fill_page, make_folder, split_page
from shared_models import SharedSegmenter, SharedVLM
from vlm_scoring import score_names

from atss_ext.cli.errors import run_tool
from atss_ext.datasets.shapes import Scene
from atss_ext.datasets.shapes_coco import split_seed
from atss_ext.errors import UserError
from atss_ext.evaluation.average_recall import Truth, average_recall
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.ensemble import DEFAULT_QUESTIONS, View, views
from atss_ext.vlsam.loading import load
from atss_ext.vlsam.names import find_names
from atss_ext.vlsam.options import PipelineOptions
from atss_ext.vlsam.pipeline import Pipeline
from atss_ext.vlsam.proposals import Proposals
from atss_ext.vlsam.protocols import Segmenter
from atss_ext.vlsam.world.scenes import SEED, SPLITS, names_in_order, scene_of

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'vlsam' / 'vlsam_world.py'
FEW = 50
SHIPPED, ORACLE = "this world's settings", 'oracle: true boxes'


class Ablation:
    """Runs every row on scene after scene.

    Args:
        pipeline: of the small models; its options are the last row.
        rows: the others.
    """

    def __init__(self, pipeline: Pipeline, rows: Sequence[Row]) -> None:
        self.vlm, self.segmenter = SharedVLM(pipeline.vlm), SharedSegmenter(pipeline.segmenter)
        options = {row.name: PipelineOptions.from_mapping(row.settings) for row in rows}
        options[SHIPPED] = dataclasses.replace(pipeline.options, keep_maps=True)
        self.pipelines = {
            name: Pipeline(self.vlm, self.segmenter, chosen) for name, chosen in options.items()
        }
        self.found: dict[str, list[Detections]] = {name: [] for name in (*self.pipelines, ORACLE)}
        self.settings = {row.name: dict(row.settings) for row in rows}
        self.scenes: list[Scene] = []
        self.said: list[list[str]] = []

    def look(self, scene: Scene) -> None:
        """Take one more scene into the table."""
        self._ask_together(scene.image)
        for name, pipeline in self.pipelines.items():
            self.found[name].append(pipeline.detect(scene.image))
        self.found[ORACLE].append(oracle(self.segmenter, scene))
        self.scenes.append(scene)
        answer = self.vlm.answer([scene.image], [DEFAULT_QUESTIONS[0]], [0])[0]
        self.said.append([mention.name for mention in find_names(answer.text, finished=answer.finished)])
        self.vlm.forget()
        self.segmenter.forget()

    def _ask_together(self, image: NDArray[np.uint8]) -> None:
        """All questions about all views in one batch, which is faster than a view at a time."""
        parts = [crop(image, view) for view in views(*image.shape[:2])]
        asked = [(part, question) for part in parts for question in DEFAULT_QUESTIONS]
        self.vlm.answer([part for part, _ in asked], [question for _, question in asked], [0] * len(asked))

    def table(self, count: int | None = None) -> dict[str, Any]:
        """The table of the first ``count`` scenes, ready for JSON; of all of them by default."""
        count = len(self.scenes) if count is None else count
        rows = [
            {
                'name': name,
                'settings': self.settings.get(name, {}),
                **score(self.scenes[:count], found[:count]),
            }
            for name, found in self.found.items()
        ]
        mar = {row['name']: row['mAR'] for row in rows}
        best = mar[ORACLE]
        true = [names_in_order(scene) for scene in self.scenes[:count]]
        return {
            'scenes': count,
            'names': score_names(self.said[:count], true)._asdict(),
            'rows': rows,
            'oracle_ratio': mar[SHIPPED] / best if best else 0.0,
            'paper_ratio': mar[PAPER] / best if best and PAPER in mar else None,
        }


def crop(image: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """The pixels of a view."""
    x1, y1, x2, y2 = view.box
    return np.ascontiguousarray(image[y1:y2, x1:x2])


@torch.no_grad()
def oracle(segmenter: Segmenter, scene: Scene) -> Detections:
    """What the segmenter makes of the true boxes, one mask each: what prompts are measured against."""
    height, width = scene.image.shape[:2]
    found = Proposals((height, width))
    if len(scene.boxes):
        boxes = torch.from_numpy(scene.boxes)
        stage = segmenter.segment(
            segmenter.embed(scene.image),
            torch.zeros(len(boxes), 0, 2),
            torch.zeros(len(boxes), 0, dtype=torch.int64),
            boxes=boxes,
        )
        maps = np.zeros((len(boxes), 1, 1), np.float32)
        view = View((0, 0, width, height), 'whole')
        found.add(stage, stage.ious, {'iou': stage.ious}, list(scene.names), maps, view)
    return found.as_detections([])


def score(scenes: Sequence[Scene], found: Sequence[Detections]) -> dict[str, float]:
    """Recall of boxes (mAR, AR50, AR75), of masks, and of boxes with the right name; detections an image."""
    truths = [Truth(scene.boxes, scene.masks, scene.names) for scene in scenes]
    return {
        **average_recall(truths, found)._asdict(),
        'mask_mAR': average_recall(truths, found, 'segm').mAR,
        'named_mAR': average_recall(truths, found, names=True).mAR,
        'detections': sum(map(len, found)) / len(found),
    }


def run(
    pipeline: Pipeline,
    scenes: Sequence[Scene],
    rows: Sequence[Row] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ablation:
    """Look at some scenes with every row.

    Args:
        pipeline: of the small models.
        scenes: of the world.
        rows: of the table, besides the pipeline's own settings and the oracle; those of the paper.
        progress: called with (scenes done, scenes in all).

    Returns:
        what was found; its :meth:`Ablation.table` scores it.
    """
    ablation = Ablation(pipeline, paper_rows() if rows is None else rows)
    for number, scene in enumerate(scenes, 1):
        ablation.look(scene)
        if progress:
            progress(number, len(scenes))
    return ablation


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Measure the steps of VL-SAM on the small world.')
    parser.add_argument('--config', type=Path, default=CONFIG, help='of the models and of the last row')
    parser.add_argument(
        '--vlm', help="another vision-language model than the config's: a folder, or a name on the hub"
    )
    parser.add_argument(
        '--segmenter', help="another segmenter than the config's: a folder, or a name on the hub"
    )
    parser.add_argument('--scenes', type=int, default=200)
    parser.add_argument('--split', choices=SPLITS, default='held-out')
    parser.add_argument('--json', type=Path, default=Path('work_dirs/vlsam_world/ablation.json'))
    parser.add_argument('--page', type=Path, help='fill the section `table` of this page')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parse_args(arguments)
    if args.scenes < 1:
        raise UserError(f'--scenes must be at least 1, but is {args.scenes}.')
    make_folder(args.json.parent)
    if args.page:  # refused before minutes are spent
        split_page(args.page, 'table')
    started = time.monotonic()
    changed = {
        f'model.{part}.model': name
        for part, name in (('vlm', args.vlm), ('segmenter', args.segmenter))
        if name
    }
    pipeline = build_pipeline(args.config, changed)
    scenes = [scene_of(args.split, index) for index in range(args.scenes)]
    ablation = run(pipeline, scenes, progress=_tell)
    table: dict[str, Any] = {
        'command': f'python tools/vlsam_world/ablation.py {shlex.join(arguments)}'.strip(),
        'split': args.split,
        'seed': split_seed(SEED, args.split),
        **ablation.table(),
    }
    if args.scenes > FEW:  # what the demo shows, and tests can afford to repeat
        table['first_scenes'] = ablation.table(FEW)
    print(markdown(table), f'\n{time.monotonic() - started:.0f} s', flush=True)
    write(args.json, json.dumps(table, indent=1) + '\n')
    if args.page:
        fill(args.page, table)


def fill(page: Path, table: Mapping[str, Any]) -> None:
    """Write the table into its section of a page."""
    fill_page(page, 'table', markdown(table))


def build_pipeline(config: Path, changed: Mapping[str, Any] | None = None) -> Pipeline:
    """The pipeline of a config with some of its values changed, which are named as ``a.b.c``."""
    if not config.is_file():
        raise UserError(f'config {config} does not exist; correct its path.')
    if not changed:
        return load(str(config))
    from atss_ext.vlsam.loading import build

    cfg = Config.fromfile(config)
    cfg.merge_from_dict(dict(changed))
    return build(cfg.model)


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    partial.write_text(text, encoding='utf-8')
    os.replace(partial, path)


def _tell(done: int, total: int) -> None:
    if done % 10 == 0 or done == total:
        print(f'{done}/{total} scenes', flush=True)


if __name__ == '__main__':
    sys.exit(run_tool(main, 'the same command starts again'))
