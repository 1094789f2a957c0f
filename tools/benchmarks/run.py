"""Times and weighs the native ops against mmdet and torchvision, and checks the ratios to reach.

    python tools/benchmarks/run.py --json benchmarks.json --plot growth.png       # some three minutes
    python tools/benchmarks/run.py --device cuda --json benchmarks.json

Needs torch and torchvision; what is compared with mmdet is left out, and said, where it is not installed.
Exits with 1 if a benchmark failed, not if a ratio was missed: that depends on the machine.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

# Before torch: threads that wait by spinning take the cores they wait for, which on a busy machine slows
# mmdet tenfold and flatters us.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

import torch

# Lets mmdet run without a compiled mmcv.
import atss_ext  # noqa: F401

# isort: split
import assignment
import box_iou
import growth
import head
import render
from _report import Report
from _settings import Settings

from atss_ext.ops import native

SUBJECTS: dict[str, Callable[[Settings, Report], None]] = {
    'assignment': assignment.rows,
    'head': head.rows,
    'box_iou': box_iou.rows,
}
# Load above which times vary.
BUSY = 0.5


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Say it and end."""
        self.exit(2, f'error: {message}\n')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; refuse here what would fail after minutes."""
    parser = Parser(description='Time the native ops against mmdet and torchvision.')
    parser.add_argument('--json', type=Path, help='write the rows here')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=_positive, default=2, help='of torch on the CPU, for both sides')
    parser.add_argument('--quick', action='store_true', help='tiny inputs: tries the tools, measures nothing')
    parser.add_argument('--plot', type=Path, help='draw how time grows into this PNG')
    parser.add_argument('--markdown', type=Path, help="fill this page's section of the device")
    args = parser.parse_args(argv)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no CUDA device here; use --device cpu')
    if args.device not in native.DEVICES:
        parser.error(f'the native library has no kernels for {args.device} here; build it for that device')
    if args.plot and not importlib.util.find_spec('matplotlib'):
        parser.error(f'--plot {args.plot} needs matplotlib; run pip install matplotlib, or leave it out')
    if args.markdown:
        try:
            render.section(args.markdown, args.device)
        except ValueError as error:
            parser.error(f'--markdown: {error}')
    return args


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be an integer of at least 1, but is {text}')
    return int(text)


def machine(device: str) -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        'cpu': _cpu_model(),
        'cores': os.cpu_count(),
        'load': round(os.getloadavg()[0], 2),
        'system': f'{platform.system()} {platform.release()}',
        'gpu': torch.cuda.get_device_name() if device == 'cuda' else None,
    }


def _cpu_model() -> str:
    try:
        info = Path('/proc/cpuinfo').read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r'^model name\s*: (.+)$', info, flags=re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def measure(settings: Settings, report: Report) -> dict[str, list[dict]] | None:
    """Run every subject; one that fails is said and does not end the others. Returns the growth."""
    for name, rows in SUBJECTS.items():
        try:
            rows(settings, report)
        except Exception:
            _failed(report, name)
    try:
        points = growth.measure(settings)
    except Exception:
        _failed(report, 'growth')
        return None
    growth.show(points)
    return points


def _failed(report: Report, name: str) -> None:
    traceback.print_exc()
    report.failed.append(name)
    print(f'failed: {name}, with the traceback above', file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; returns the exit code."""
    args = parse_args(argv)
    settings = Settings(args.device, args.threads, args.quick)
    settings.apply()
    words = sys.argv[1:] if argv is None else argv
    result: dict[str, Any] = {
        'date': date.today().isoformat(),
        'command': shlex.join(['python', 'tools/benchmarks/run.py', *words]),
        'device': args.device,
        'machine': machine(args.device),
        'torch': torch.__version__,
        'threads': args.threads,
        'omp_wait_policy': os.environ['OMP_WAIT_POLICY'],
        'quick': args.quick,
    }
    if result['machine']['load'] > BUSY:
        print(
            f'note: the load is {result["machine"]["load"]}; times are worth little on a busy machine',
            file=sys.stderr,
        )
    report = Report()
    points = measure(settings, report)
    result |= {
        'rows': [row.as_json() for row in report.rows],
        'left_out': report.left_out,
        'failed': report.failed,
        'growth': points,
    }
    _write(args, result)
    missed = [row for row in result['rows'] if row['reached'] is False]
    if missed and not args.quick:
        print(f'\n{len(missed)} of {len(result["rows"])} rows are below the ratio to reach')
    return 1 if report.failed else 0


def _write(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    if args.plot and result['growth']:
        growth.plot(result['growth'], args.plot)
    if args.markdown:
        render.fill(args.markdown, result, args.plot)


if __name__ == '__main__':
    sys.exit(main())
