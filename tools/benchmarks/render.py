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

import _curves
from _report import HEADINGS, row_name, significant, table_cells, times, with_spread

SIDES = ('ours', 'theirs')
COLD_HEADINGS = (
    ('first call after the other side, work, against', 'ours ms', 'theirs ms', 'ratio'),
    ('---', '--:', '--:', '--:'),
)


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
    lines += ['', *verdict(result['rows']), '', *table(COLD_HEADINGS, cold_cells(result['rows']))]
    if result['other_policy']:
        lines += ['', *policies(result)]
    for points in (result['growth'] or {}).values():
        rule = ['--:'] * len(_curves.HEADINGS)
        lines += ['', *table((_curves.HEADINGS, rule), map(_curves.cells, points))]
        lines += ['', _curves.sentence(points)]
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
        f'{where}, {result["threads"]} threads, {policy_name(result)}, load {machine["load"]} before the '
        f'run, torch {result["torch"]}, {result["date"]}: `{result["command"]}`{quick}'
    ]


def verdict(rows: list[dict]) -> list[str]:
    """Which ratios were missed, by how much, and what their work includes."""
    missed = [row for row in rows if row['reached'] is False]
    if not missed:
        reached = any(row['reached'] for row in rows)
        return ['Every ratio that is set was reached.' if reached else 'No ratio is set.']
    lines = ['Below the ratio to reach; after it what such work includes, done alone in the same run:', '']
    for row in missed:
        line = f'- {row_name(row)}: {times(row["ratio"])} of {times(row["at_least"])}'
        if row['ours_ms'] and row['theirs_ms']:
            needed = significant(row['theirs_ms'] / row['at_least'])
            line += f', {significant(row["ours_ms"])} ms where {needed} ms would reach it'
        for name, milliseconds in (row['parts'] or {}).items():
            line += f'; {name} {significant(milliseconds)} ms'
        lines.append(line)
    return lines


def cold_cells(rows: list[dict]) -> list[list[str]]:
    """The calls that follow one of the other side."""
    cold = [row for row in rows if row['cold_ratio'] is not None]
    return [
        [row_name(row), *(significant(row[f'{side}_cold_ms']) for side in SIDES), times(row['cold_ratio'])]
        for row in cold
    ]


def policies(result: dict[str, Any]) -> list[str]:
    """The same pairs in a process of its own under the other wait policy."""
    other = result['other_policy']
    names = [policy_name(one) for one in (result, other)]
    head = ['work, against', *(f'{side} ms, {name}' for side in SIDES for name in names)]
    head += [f'ratio, {name}' for name in names]
    before = {row_name(row): row for row in result['rows']}
    pairs = [(before[row_name(row)], row) for row in other['rows'] if row_name(row) in before]
    lines = []
    for pair in pairs:
        timed = [with_spread(one[f'{side}_ms'], one[f'{side}_spread']) for side in SIDES for one in pair]
        lines.append([row_name(pair[0]), *timed, *(times(one['ratio']) for one in pair)])
    return table((head, ['---'] + ['--:'] * 6), lines)


def policy_name(result: dict[str, Any]) -> str:
    """What OpenMP was told."""
    value = result['omp_wait_policy']
    return 'OMP_WAIT_POLICY unset' if value is None else f'OMP_WAIT_POLICY={value}'


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
