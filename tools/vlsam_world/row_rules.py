"""Measures which rows of the attention speak for a name, on scenes of the world made for choosing options.

python tools/vlsam_world/row_rules.py --scenes 300

For every row rule, attention flow and head weighting it prints the share of objects whose map is highest on
the object and the mean AUC of the object's cells, once with the true sentence put into the model's mouth and
once with what it says itself (only names that are true are judged). No held-out scene is looked at.
"""

import argparse
import itertools
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from map_quality import Quality, map_quality, match_names, mean_quality
from numpy.typing import NDArray
from vlm_scoring import score_names

from atss_ext.cli.errors import run_tool
from atss_ext.datasets.shapes import Scene
from atss_ext.datasets.shapes_coco import split_seed
from atss_ext.errors import UserError
from atss_ext.vlsam.attention import FlowOptions, attention_rows, grid_map
from atss_ext.vlsam.names import ROW_RULES, find_names, row_weights
from atss_ext.vlsam.protocols import Answer, Reading, VisionLanguageModel
from atss_ext.vlsam.vlm import TransformersVLM
from atss_ext.vlsam.world.scenes import QUESTIONS, SEED, names_in_order, reading_order, scene_of, sentence
from atss_ext.vlsam.world.shipped import WEIGHTS

SPLIT = 'rules'
FLOWS = ('none', 'plain', 'regularised')
HEADS = ('uniform', 'mean-max')


class Setting(NamedTuple):
    """One way to make a map."""

    rows: str
    flow: str
    heads: str


Table = dict[Setting, list[Quality]]


def true_answer(said: Answer, names: Sequence[str], tokenizer: Any) -> Answer:
    """The answer the model should have given, as if it had."""
    text = sentence(names)
    encoded = tokenizer(text, add_special_tokens=False)['input_ids']
    ends = [len(tokenizer.decode(encoded[: i + 1])) for i in range(len(encoded))]
    spans = list(zip([0, *ends], [*ends, ends[-1]], strict=True))
    return said._replace(text=text, spans=spans, token_ids=[*encoded, tokenizer.eos_token_id])


def measure(vlm: VisionLanguageModel, answer: Answer, scene: Scene, table: Table) -> list[str]:
    """Judge the maps of one answer's true names in every setting.

    Args:
        vlm: gave the answer.
        answer: about the scene.
        scene: of the world.
        table: gets a quality a name in each setting.

    Returns:
        all names of the answer, true or not.
    """
    mentions = find_names(answer.text)
    names = [mention.name for mention in mentions]
    pairs = match_names(names, names_in_order(scene))
    if pairs:
        order, reading = reading_order(scene.boxes), vlm.read(answer)
        for setting, maps in maps_of(reading, [mentions[said] for said, _ in pairs], answer):
            for values, (_, place) in zip(maps, pairs, strict=True):
                table.setdefault(setting, []).append(map_quality(values, scene.masks[order[place]]))
    return names


def maps_of(
    reading: Reading, mentions: Sequence[Any], answer: Answer
) -> Iterator[tuple[Setting, NDArray[np.float32]]]:
    """Each setting with its maps [O, R, C] of O mentions."""
    length = reading.start + len(answer.token_ids)
    rules = [row_weights(mentions, answer.spans, reading.start, length, rule) for rule in ROW_RULES]
    for flow, heads in itertools.product(FLOWS, HEADS):
        options = FlowOptions(flow=flow, heads=heads)
        rows = attention_rows(reading.layers, torch.cat(rules), options, reading.valid)
        maps = grid_map(rows, reading.grids).cpu().numpy()
        for rule, part in zip(ROW_RULES, np.split(maps, len(ROW_RULES)), strict=True):
            yield Setting(rule, flow, heads), part


def markdown(table: Table) -> str:
    """The table, the best first."""
    lines = [
        '| rows | flow | heads | highest on the object | highest cell shows it | AUC of its cells |',
        '|---|---|---|---|---|---|',
    ]
    means = {setting: mean_quality(found) for setting, found in table.items()}
    for setting, quality in sorted(means.items(), key=lambda item: (item[1].hit, item[1].auc), reverse=True):
        lines.append('| ' + ' | '.join([*setting, *(f'{value:.3f}' for value in quality)]) + ' |')
    return '\n'.join(lines)


def section(vlm: VisionLanguageModel, title: str, answers: Sequence[Answer], scenes: Sequence[Scene]) -> str:
    """One table with what it was measured on."""
    table: Table = {}
    named = [measure(vlm, answer, scene, table) for answer, scene in zip(answers, scenes, strict=True)]
    score = score_names(named, [list(names_in_order(scene)) for scene in scenes])
    count = len(next(iter(table.values()), []))
    text = f'{title}: {count} true names; names precision {score.precision:.3f}, recall {score.recall:.3f}.'
    return f'{text}\n\n{markdown(table)}'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Measure which rows of the attention speak for a name.')
    parser.add_argument('--model', type=Path, default=WEIGHTS / 'vlm', help="the default is the package's")
    parser.add_argument('--scenes', type=int, default=300)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/vlsam_world/row_rules.md'))
    parser.add_argument('--threads', type=int, default=1)
    return parser.parse_args(argv)


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parse_args(arguments)
    if not (args.model / 'config.json').is_file():
        raise UserError(f'{args.model} holds no model; make one with tools/vlsam_world/train_vlm.py.')
    if args.scenes < 1:
        raise UserError(f'--scenes must be at least 1, but is {args.scenes}.')
    if args.threads < 1:
        raise UserError(f'--threads must be at least 1, but is {args.threads}.')
    torch.set_num_threads(args.threads)
    started = time.monotonic()
    vlm = TransformersVLM(args.model, temperature=0, max_new_tokens=64, local_files_only=True)
    scenes = [scene_of(SPLIT, index) for index in range(args.scenes)]
    count = len(scenes)
    said = vlm.answer([scene.image for scene in scenes], [QUESTIONS[0]] * count, [0] * count)
    tokenizer = vlm.processor.tokenizer
    told = [true_answer(answer, names_in_order(s), tokenizer) for answer, s in zip(said, scenes, strict=True)]
    report = [
        f'`python tools/vlsam_world/row_rules.py {shlex.join(arguments)}`: scenes 0 to {count - 1} of the '
        f'split "{SPLIT}" (seed {split_seed(SEED, SPLIT)}).',
        section(vlm, 'The true sentence', told, scenes),
        section(vlm, 'What the model says itself', said, scenes),
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text('\n\n'.join(report) + '\n', encoding='utf-8')
    print('\n\n'.join(report), f'\n\n{time.monotonic() - started:.0f} s, written to {args.out}', flush=True)


if __name__ == '__main__':
    sys.exit(run_tool(main, 'the same command starts again'))
