"""Fills the tables of docs/benchmarks.md from measured results, so that no figure is typed by hand.

    python tools/benchmarks/render.py benchmarks.json docs/benchmarks.md [--plot docs/images/growth.png]
    python tools/benchmarks/render.py gpu_check.json docs/benchmarks.md

A section lies between `<!-- cpu: begin -->` and `<!-- cpu: end -->`, or the same with `cuda`.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import growth
from _report import HEADINGS, table_cells


def section(page: Path, device: str) -> tuple[str, str]:
    """What stands before and after a device's section of the page.

    Raises:
        ValueError: the page, or its section, is not there.
    """
    if not page.is_file():
        raise ValueError(f'{page} does not exist; name the page to fill, docs/benchmarks.md')
    begin, end = (f'<!-- {device}: {edge} -->' for edge in ('begin', 'end'))
    before, found, rest = page.read_text(encoding='utf-8').partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f'{page} has no section between {begin} and {end}; add these lines')
    return before + begin, end + after


def fill(page: Path, result: dict[str, Any], plot: Path | None = None) -> None:
    """Replace a section by the tables of a result of run.py; ``plot`` is linked."""
    before, after = section(page, result['device'])
    lines = [*head_lines(result), '', *table(HEADINGS, map(table_cells, result['rows']))]
    if result['left_out']:
        lines += [
            '',
            'Not compared here: ' + '; '.join(text.removeprefix('left out: ') for text in result['left_out']),
        ]
    for points in (result['growth'] or {}).values():
        rule = ['--:'] * len(growth.HEADINGS)
        lines += ['', *table((growth.HEADINGS, rule), map(growth.cells, points))]
    if plot:
        link = os.path.relpath(plot, page.parent).replace(os.sep, '/')
        lines += ['', f'![Time of the grid route against the number of priors and of gts]({link})']
    page.write_text(f'{before}\n' + '\n'.join(lines) + f'\n{after}', encoding='utf-8')


def head_lines(result: dict[str, Any]) -> list[str]:
    """Machine, date and command."""
    machine = result['machine']
    where = f'{machine["cpu"]}, {machine["cores"]} cores'
    if machine['gpu']:
        where = f'{machine["gpu"]} ({where})'
    quick = ' **A quick run on tiny inputs: the figures mean nothing.**' if result['quick'] else ''
    return [
        f'{where}, {result["threads"]} threads, load {machine["load"]} before the run, torch '
        f'{result["torch"]}, {result["date"]}: `{result["command"]}`{quick}'
    ]


def table(head: Sequence[Iterable[str]], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return ['| ' + ' | '.join(row) + ' |' for row in (*head, *rows)]


def main(argv: Sequence[str] | None = None) -> int:
    """Fill the page; returns the exit code."""
    parser = argparse.ArgumentParser(description='Fill a section of docs/benchmarks.md from a result.')
    parser.add_argument('result', type=Path, help='JSON of run.py --json, or of gpu_check.sh')
    parser.add_argument('page', type=Path)
    parser.add_argument('--plot', type=Path, help='PNG to link')
    args = parser.parse_args(argv)
    try:
        result = json.loads(args.result.read_text(encoding='utf-8'))
        result = result.get('benchmarks', result)
        if not result or 'rows' not in result:
            raise ValueError(f'{args.result} holds no benchmark rows; write it with run.py --json')
        fill(args.page, result, args.plot)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
