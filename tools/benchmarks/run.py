"""Times and weighs the native ops against mmdet and torchvision, and checks the ratios to reach.

    python tools/benchmarks/run.py --json benchmarks.json --plot growth.png       # some three minutes
    python tools/benchmarks/run.py --device cuda --json benchmarks.json

The figure of a row is the median of warm calls, those that follow another call of the same side: the faster
side makes up to 50 in a row, the slower one a second. What the first call after the other side costs stands
in the row as the cold figure (_pairs.py says how calls are timed).
The environment is left as it is, as a user has it; on the CPU the pairs are timed once more in a process of
its own with OMP_WAIT_POLICY=passive. `--wait-policy passive` measures everything that way, and nothing else.
Needs torch and torchvision; what is compared with mmdet is left out, and said, where it is not installed.
Exits with 1 if a benchmark failed, not if a ratio was missed: that depends on the machine.
"""

import argparse
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import _curves
import render


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Say it and end."""
        self.exit(2, f'error: {message}\n')


def make_parser() -> Parser:
    """The options; defaults are what a record of the command leaves out."""
    parser = Parser(description='Time the native ops against mmdet and torchvision.')
    parser.add_argument('--json', type=Path, help='write the rows here')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=_positive, default=2, help='of torch on the CPU, for both sides')
    parser.add_argument(
        '--wait-policy',
        choices=('default', 'passive'),
        default='default',
        help='default: leave the environment alone, and compare; passive: set OMP_WAIT_POLICY=passive',
    )
    parser.add_argument('--quick', action='store_true', help='tiny inputs: tries the tools, measures nothing')
    parser.add_argument('--times-only', action='store_true', help='leave out memory, growth and other policy')
    parser.add_argument('--plot', type=Path, help='draw how time grows into this PNG')
    parser.add_argument('--markdown', type=Path, help="fill this page's section of the device")
    return parser


def parse_args(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; refuse here what would fail after minutes."""
    args = parser.parse_args(argv)
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


def command(parser: Parser, args: argparse.Namespace) -> str:
    """The command as files record it; of paths only the last part, the rest is this machine's own."""
    words = ['python', 'tools/benchmarks/run.py']
    for name, value in vars(args).items():
        if value is True:
            words.append(f'--{name.replace("_", "-")}')
        elif value and value != parser.get_default(name):
            text = value.name if isinstance(value, Path) else str(value)
            words += [f'--{name.replace("_", "-")}', text]
    return shlex.join(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; returns the exit code."""
    parser = make_parser()
    args = parse_args(parser, argv)
    if args.wait_policy == 'passive':
        os.environ['OMP_WAIT_POLICY'] = 'passive'
    # Not before: its OpenMP reads the environment once.
    import torch

    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no CUDA device here; use --device cpu')
    import _measuring
    from _settings import Settings

    refusal = _measuring.refusal(args.device)
    if refusal:
        parser.error(refusal)
    settings = Settings(args.device, args.threads, args.quick, args.times_only)
    compare = settings.on_cpu and args.wait_policy == 'default' and not args.times_only
    result = {'command': command(parser, args), 'wait_policy': args.wait_policy} | _measuring.run(
        settings, compare
    )
    _write(args, result)
    missed = [row for row in result['rows'] if row['reached'] is False]
    if missed and not args.quick:
        print(f'\n{len(missed)} of {len(result["rows"])} rows are below the ratio to reach')
    return 1 if result['failed'] else 0


def _write(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    if args.plot and result['growth']:
        _curves.plot(result['growth'], args.plot)
    if args.markdown:
        render.fill(args.markdown, result, args.plot)


if __name__ == '__main__':
    sys.exit(main())
