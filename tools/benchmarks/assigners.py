"""Times and weighs the assigners that go by predictions against mmdet's, and checks the ratios to reach.

    python tools/benchmarks/assigners.py --json assigners.json --markdown docs/benchmarks.md   # 5-15 min

Both sides run in this process, on the same inputs, in turns, after a call whose results are compared. mmdet's
take seconds a call, so that there are few rounds. Memory is measured in processes of their own: of mmdet's
for one image, which is what a batch of any size takes with it, ours for the batch. Exits with 1 if results
disagree, not if a ratio was missed: that depends on the machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

import render
from _report import HEADINGS, Report, Row, table_cells
from _settings import Settings
from run import Parser, _positive

SECTION = 'assigners'
IMAGES, GTS, CLASSES, MANY_CLASSES = 8, 100, 80, 1203
AT_LEAST = {'TaskAlignedAssigner': 20, 'SimOTAAssigner': 20}
MANY_CLASSES_MB = 1000
# Priors that may differ: rounding decides where costs are equal but for it.
MAX_DIFFERENT = 1e-3
TIMEOUT_S = 300


def work(settings: Settings, name: str, state: str, images: int, gts: int, classes: int) -> str:
    """What a row does, in words."""
    priors = 22_400 if not settings.quick else 'a few'
    shown = f'{priors:,}' if isinstance(priors, int) else priors
    return f'{name}, {state}, B = {images}, N = {shown}, M = {gts}, C = {classes:,}'


def timed_row(settings: Settings, name: str, state: str, rounds: int) -> Row:
    """Both sides in turns.

    Raises:
        RuntimeError: where they disagree.
    """
    from _pairs import Side
    from _predictions import make_batch, our_call, share_of_differences, their_call

    images, gts = settings.count(IMAGES), settings.count(GTS)
    batch = make_batch(settings, images, gts, CLASSES, state)
    ours, theirs = Side(our_call(batch, name), 'cpu'), Side(their_call(batch, name), 'cpu')
    different = share_of_differences(ours.call(), theirs.call())
    if different > MAX_DIFFERENT:
        raise RuntimeError(f'{name} assigns {different:.2%} of the priors otherwise than mmdet')
    for _ in range(rounds):
        theirs.warm.append(theirs.once())
        ours.once()
        ours.warm += [ours.once() for _ in range(3)]
    figures = {}
    for side, times in (('ours', ours.warm), ('theirs', theirs.warm)):
        first, median, third = (value * 1e3 for value in statistics.quantiles(times, n=4))
        figures |= {f'{side}_ms': median, f'{side}_spread': (first, third)}
    at_least = AT_LEAST.get(name)
    return Row(
        work(settings, name, state, images, gts, CLASSES), f'mmdet {name}', at_least=at_least, **figures
    )


def peak_mb(settings: Settings, side: str, name: str, images: int, classes: int) -> float:
    """Peak extra memory of a call in a process of its own, results included, 10^6 bytes."""
    from _memory import MALLOC

    request = {
        'settings': asdict(settings),
        'side': side,
        'name': name,
        'images': images,
        'gts': settings.count(GTS),
        'classes': classes,
    }
    command = [sys.executable, '-W', 'ignore', str(Path(__file__).resolve()), '--peak', json.dumps(request)]
    done = subprocess.run(
        command, env={**os.environ, **MALLOC}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f'the process that measures the memory of {name} failed:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def measure_peak(request: dict) -> float:
    """In the child: a small call first, which loads libraries and starts threads."""
    from _memory import _host_peak
    from _predictions import make_batch, our_call, their_call

    settings = Settings(**request['settings'])
    settings.apply()
    call = our_call if request['side'] == 'ours' else their_call
    batch = make_batch(settings, request['images'], request['gts'], request['classes'])
    measured = call(batch, request['name'])
    small = make_batch(Settings(quick=True), 1, 3, 5)
    call(small, request['name'])()
    return _host_peak(measured)


def memory_rows(settings: Settings, report: Report) -> None:
    """Ours against mmdet's, and ours with the classes of LVIS."""
    from _predictions import RULES, STATES

    images, gts = settings.count(IMAGES), settings.count(GTS)
    for name in RULES[:1] if settings.quick else RULES:
        ours = peak_mb(settings, 'ours', name, images, CLASSES)
        theirs = peak_mb(settings, 'theirs', name, 1, CLASSES)
        said = work(settings, name, STATES[0], images, gts, CLASSES)
        report.add(Row(f'peak extra memory, {said}', f'mmdet {name}', ours_mb=ours, theirs_mb=theirs))
        classes = MANY_CLASSES // 20 if settings.quick else MANY_CLASSES
        many = peak_mb(settings, 'ours', name, images, classes)
        said = work(settings, name, STATES[0], images, gts, classes)
        report.add(Row(f'peak extra memory, {said}', ours_mb=many))
        if many > MANY_CLASSES_MB:
            report.failed.append(f'{name} takes {many:.0f} MB with {classes} classes')


def measure(settings: Settings, rounds: int) -> Report:
    """All rows."""
    from _predictions import RULES, STATES

    report = Report()
    for name in RULES:
        report.add(timed_row(settings, name, STATES[0], rounds))
    report.add(timed_row(settings, RULES[0], STATES[1], rounds))
    memory_rows(settings, report)
    return report


def fill(page: Path, result: dict) -> None:
    """Replaces the section of the page."""
    before, after = render.section(page, SECTION)
    lines = [*render.head_lines(result), '', *render.table(HEADINGS, map(table_cells, result['rows'])), '']
    lines += render.verdict(result['rows'])
    text = '\n'.join(lines)
    page.write_text(f'{before}\n{text}\n{after}', encoding='utf-8')


def make_parser() -> Parser:
    """The options."""
    parser = Parser(description="Time the assigners that go by predictions against mmdet's.")
    parser.add_argument('--json', type=Path, help='write the rows here')
    parser.add_argument('--threads', type=_positive, default=1, help='of torch, for both sides')
    parser.add_argument('--rounds', type=_positive, default=3, help="calls of mmdet's that count")
    parser.add_argument('--quick', action='store_true', help='tiny inputs: tries the tool, measures nothing')
    parser.add_argument('--markdown', type=Path, help=f'fill the section {SECTION!r} of this page')
    parser.add_argument('--peak', help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    warnings.filterwarnings('ignore', '.*torch.cuda.amp.autocast.*', FutureWarning)  # mmdet's SimOTA
    if args.peak:
        print(json.dumps(measure_peak(json.loads(args.peak))))
        return 0
    if args.markdown:
        try:
            render.section(args.markdown, SECTION)
        except ValueError as error:
            parser.error(f'--markdown: {error}')
    import torch
    from _measuring import machine
    from _settings import has_mmdet

    if not has_mmdet():
        parser.error('mmdet is not installed, and there is nothing else to compare with; install mmdet')
    settings = Settings(threads=args.threads, quick=args.quick)
    settings.apply()
    command = f'python tools/benchmarks/assigners.py --threads {args.threads} --rounds {args.rounds}'
    result = {
        'command': command + (' --quick' if args.quick else ''),
        'date': date.today().isoformat(),
        'machine': machine('cpu'),
        'torch': torch.__version__,
        'threads': args.threads,
        'omp_wait_policy': os.environ.get('OMP_WAIT_POLICY'),
        'quick': args.quick,
    }
    report = measure(settings, args.rounds)
    result |= {'rows': [row.as_json() for row in report.rows], 'failed': report.failed}
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    if args.markdown:
        fill(args.markdown, result)
    for sentence in report.failed:
        print(f'failed: {sentence}', file=sys.stderr)
    return 1 if report.failed else 0


if __name__ == '__main__':
    sys.exit(main())
