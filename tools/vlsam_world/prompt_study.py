"""Measures what makes point prompts better, on scenes of the small world made for choosing options.

python tools/vlsam_world/prompt_study.py --scenes 300

Every answer of the model is read once; then each setting is changed by itself, and a combination is chosen on
the first half of the scenes and reported on the second. No held-out scene is looked at, and no segmenter.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from study_answers import collect
from study_scores import Bootstrap, Study
from study_settings import QUESTION, Change, Setting, changed, factors
from study_tables import Table, compare, document

from atss_ext.cli.errors import run_tool
from atss_ext.datasets.shapes_coco import split_seed
from atss_ext.errors import UserError
from atss_ext.vlsam.ensemble import DEFAULT_QUESTIONS
from atss_ext.vlsam.vlm import TransformersVLM
from atss_ext.vlsam.world.scenes import SEED, scene_of
from atss_ext.vlsam.world.shipped import WEIGHTS

SPLIT = 'rules'
ASKED = (0, 3, 6, 9)
"""Indices of the default questions: the first is that of all settings but three."""

# A change is taken where it gains more than its standard error; rounds over all factors.
_ROUNDS = 3


class Found(NamedTuple):
    """What the study came to.

    Attributes:
        chosen: the combination.
        alone: each change of the pipeline's defaults by itself, over all scenes.
        halves: defaults and combination on the scenes that chose it and on the others.
        around: each change of the combination, on the others.
    """

    chosen: Setting
    alone: Table
    halves: Table
    around: Table


def choose(study: Study, options: dict[str, list[Change]], bootstrap: Bootstrap) -> Setting:
    """Take the best value of one factor after the other, from the pipeline's defaults, until none gains.

    What counts is the share of objects with two right points, over the views of the scenes that the
    bootstrap draws from (the first ones). Questions are not chosen: the method asks them all.

    Args:
        study: of the answers.
        options: of :func:`factors`.
        bootstrap: over the scenes to choose on.
    """
    best = Setting()
    for _ in range(_ROUNDS):
        before = best
        for name, changes in options.items():
            if name == QUESTION:
                continue
            rivals = [changed(best, change) for change in changes]
            gains = [compare(study, rival, best, bootstrap).gain for rival in rivals]
            top = max(range(len(rivals)), key=lambda index: gains[index].value)
            if gains[top].value > gains[top].error:
                best = rivals[top]
        if best == before:
            break
    return best


def run(study: Study, options: dict[str, list[Change]], scenes: int, seed: int) -> Found:
    """Compare all settings.

    Args:
        study: of the answers.
        options: of :func:`factors`.
        scenes: their number, at least 2.
        seed: of the bootstrap.
    """
    first, second = Bootstrap(range(scenes // 2), seed), Bootstrap(range(scenes // 2, scenes), seed)
    chosen, base = choose(study, options, first), Setting()
    halves = {'first half': first, 'second half': second}
    return Found(
        chosen,
        one_by_one(study, base, options, Bootstrap(range(scenes), seed)),
        [
            (half, compare(study, setting, base, bootstrap))
            for half, bootstrap in halves.items()
            for setting in (base, chosen)
        ],
        one_by_one(study, chosen, options, second),
    )


def one_by_one(study: Study, base: Setting, options: dict[str, list[Change]], bootstrap: Bootstrap) -> Table:
    """Every change of a setting by itself, factor by factor, the setting itself first."""
    rows = [('', compare(study, base, base, bootstrap))]
    for name, changes in options.items():
        others = [setting for change in changes if (setting := changed(base, change)) != base]
        rows += [(name, compare(study, setting, base, bootstrap)) for setting in others]
    return rows


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Measure what makes point prompts better.')
    parser.add_argument('--model', type=Path, default=WEIGHTS / 'vlm', help="the default is the package's")
    parser.add_argument('--scenes', type=int, default=300)
    parser.add_argument('--seed', type=int, default=0, help='of the bootstrap')
    parser.add_argument('--out', type=Path, default=Path('docs/prompt_study.md'))
    parser.add_argument('--json', type=Path, default=Path('work_dirs/vlsam_world/prompt_study.json'))
    parser.add_argument('--threads', type=int, default=1)
    return parser.parse_args(argv)


def as_json(found: Found, facts: dict[str, Any]) -> str:
    """Everything that was measured."""

    def rows(table: Table) -> list[dict[str, Any]]:
        return [{'part': part, **row.as_dict()} for part, row in table]

    tables = {name: rows(getattr(found, name)) for name in ('alone', 'halves', 'around')}
    return json.dumps({**facts, 'chosen': found.chosen.config(), **tables}, indent=1)


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write the tables."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parse_args(arguments)
    if not (args.model / 'config.json').is_file():
        raise UserError(f'{args.model} holds no model; make one with tools/vlsam_world/train_vlm.py.')
    if args.scenes < 2:
        raise UserError(f'--scenes must be at least 2, a half to choose on each, but is {args.scenes}.')
    if args.threads < 1:
        raise UserError(f'--threads must be at least 1, but is {args.threads}.')
    torch.set_num_threads(args.threads)
    started = time.monotonic()
    vlm = TransformersVLM(args.model, temperature=0, max_new_tokens=64, batch_size=50, local_files_only=True)
    scenes = [scene_of(SPLIT, index) for index in range(args.scenes)]
    questions = [DEFAULT_QUESTIONS[number] for number in ASKED]
    subjects = collect(vlm, scenes, questions)
    if not subjects:
        raise UserError(f'{args.model} names nothing true in {args.scenes} scenes; train it for longer.')
    study = Study(subjects)
    found = run(study, factors(len(subjects[0].reading.layers), len(ASKED)), args.scenes, args.seed)
    facts = {
        'command': shlex.join(['python', 'tools/vlsam_world/prompt_study.py', *arguments]),
        'scenes': args.scenes,
        'split': SPLIT,
        'split_seed': split_seed(SEED, SPLIT),
        'seed': args.seed,
        'questions': questions,
    }
    text = document(found.chosen, found.alone, found.halves, found.around, facts)
    for path, content in ((args.out, text), (args.json, as_json(found, facts))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + '\n', encoding='utf-8')
    print(text, f'\n\n{time.monotonic() - started:.0f} s, written to {args.out} and {args.json}', flush=True)


if __name__ == '__main__':
    sys.exit(run_tool(main, 'the same command starts again'))
