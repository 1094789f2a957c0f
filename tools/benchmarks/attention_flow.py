"""Times and weighs the attention flow of VL-SAM against its equations, and fills docs/attention.md.

    python tools/benchmarks/attention_flow.py --json attention.json \
        --plot docs/images/attention_growth.png --markdown docs/attention.md      # some fifteen minutes

Every figure comes from a process of its own, which makes its inputs and a tiny call first. All ways have
their turn in each of three rounds, so that a busy machine slows all; a time is the median call. Peak memory
is the growth of the resident set, results included, q and k not (_memory.py says how). The results of all
ways are compared. Needs torch alone, and matplotlib for --plot.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import _attention_report as report
import render
from run import Parser, _positive, command

ROUNDS = 3
# Calls of ours a round: they are short.
CALLS = 3
BUSY = 0.5


def make_parser() -> Parser:
    """The options; defaults are what a record of the command leaves out."""
    parser = Parser(description='Time the attention flow against its equations on the CPU.')
    parser.add_argument('--json', type=Path, help='write the figures here')
    parser.add_argument('--threads', type=_positive, default=2, help='of torch, for all ways')
    parser.add_argument('--quick', action='store_true', help='tiny inputs: tries the tool, measures nothing')
    parser.add_argument('--plot', type=Path, help='draw how time and memory grow into this PNG')
    parser.add_argument('--markdown', type=Path, help='fill the section `cpu` of this page')
    return parser


def parse_args(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; refuse here what would fail after minutes."""
    args = parser.parse_args(argv)
    if args.plot and not importlib.util.find_spec('matplotlib'):
        parser.error(f'--plot {args.plot} needs matplotlib; run pip install matplotlib, or leave it out')
    if args.markdown:
        try:
            render.section(args.markdown, 'cpu')
        except ValueError as error:
            parser.error(f'--markdown: {error}')
    return args


def measure_sides(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All ways on the sizes of the target: their figures, and the sizes."""
    from _attention_case import LITERAL, OURS, SIDES, Case, Request, measure

    case = Case(64, 2, 4, 16, 2) if args.quick else Case()
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    memory = dict.fromkeys(SIDES, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        files = {side: str(Path(folder) / f'{number}.pt') for number, side in enumerate(SIDES)}
        for number in range(1 if args.quick else ROUNDS):
            for side in SIDES[:: -1 if number % 2 else 1]:
                calls = CALLS if side.startswith(OURS) else 1
                asked = Request(side, [case], ['time'], args.threads, calls, files[side])
                # A quick run saves processes.
                asked = replace(asked, what=['memory', 'time']) if args.quick else asked
                (found,) = measure(asked)
                seconds[side] += found['seconds']
                memory[side] = found.get('mb', 0.0)
                print(f'round {number + 1}: {side}: {min(found["seconds"]):.3f} s', flush=True)
        errors = _errors(files, LITERAL)
    if not args.quick:
        for side in SIDES:
            (found,) = measure(Request(side, [case], ['memory'], args.threads))
            memory[side] = found['mb']
            print(f'{side}: {memory[side]:.1f} MB', flush=True)
    sides = [
        {
            'side': side,
            'seconds': statistics.median(seconds[side]),
            'fastest': min(seconds[side]),
            'slowest': max(seconds[side]),
            'mb': memory[side],
            'error': errors[side],
        }
        for side in SIDES
    ]
    return sides, asdict(case)


def _errors(files: dict[str, str], literal: str) -> dict[str, float]:
    """Greatest relative difference from the literal float64 rows, entry by entry."""
    import torch

    rows = {side: torch.load(file, weights_only=True).double() for side, file in files.items()}
    right = rows[literal]
    return {side: float(((one - right).abs() / right).nan_to_num(0).max()) for side, one in rows.items()}


def measure_growth(args: argparse.Namespace) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """How time and memory grow over N and over L: for each a list of points a way."""
    from _attention_case import OURS, Case, Request, measure

    base = Case(64, 2, 4, 16, 2) if args.quick else Case()
    tokens = (32, 64) if args.quick else (250, 500, 1000, 1500, 2000, 2500)
    layers = (1, 2) if args.quick else (4, 8, 16, 32)
    by = {
        'tokens': [replace(base, tokens=count, layers=min(base.layers, 4)) for count in tokens],
        'layers': [replace(base, layers=count) for count in layers],
    }
    growth: dict[str, dict[str, list[dict[str, Any]]]] = {key: {} for key in by}
    for side in report.GROWING:
        cases = [case for some in by.values() for case in some]
        figures: list[dict[str, Any]] = [asdict(case) for case in cases]
        for what in (['memory', 'time'],) if args.quick else (['time'], ['memory']):
            asked = Request(side, cases, what, args.threads, CALLS if side == OURS else 1)
            for figure, found in zip(figures, measure(asked), strict=True):
                figure |= found
        for figure in figures:
            figure['seconds'] = statistics.median(figure['seconds'])
        growth['tokens'][side], growth['layers'][side] = figures[: len(tokens)], figures[len(tokens) :]
        print(f'growth: {side}', flush=True)
    return growth


def matmul_rate(threads: int, quick: bool) -> float:
    """float32 operations a second of torch's products of large matrices."""
    import torch

    torch.set_num_threads(threads)
    size = 64 if quick else 2048
    one, other, out = (torch.rand(size, size) for _ in range(3))
    best = float('inf')
    for _ in range(12):
        start = time.perf_counter()
        torch.mm(one, other, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    parser = make_parser()
    args = parse_args(parser, argv)
    from _measuring import machine
    from torch import __version__ as torch_version

    where = machine('cpu')
    if where['load'] > BUSY:
        print(f'note: the load is {where["load"]}; times are worth little on a busy machine', file=sys.stderr)
    result: dict[str, Any] = {
        'command': command(parser, args).replace('run.py', Path(__file__).name, 1),
        'date': date.today().isoformat(),
        'machine': where,
        'omp_wait_policy': os.environ.get('OMP_WAIT_POLICY'),
        'torch': torch_version,
        'threads': args.threads,
        'quick': args.quick,
        'matmul_rate': matmul_rate(args.threads, args.quick),
    }
    result['sides'], result['case'] = measure_sides(args)
    result['growth'] = measure_growth(args)
    for line in report.lines(result):
        print(line)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    if args.plot:
        report.plot(result, args.plot)
    if args.markdown:
        before, after = render.section(args.markdown, 'cpu')
        page = '\n'.join([before, *report.lines(result, args.plot, args.markdown), after])
        args.markdown.write_text(page, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
