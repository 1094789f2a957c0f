"""The finished runs of a table as markdown, as a sentence on the paper's order, and as a plot."""

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _paper_rows import Row

from atss_ext.cli.targets import writing
from atss_ext.visualization.page import DISTINCT, FAINT, INK, Page, unit
from atss_ext.visualization.progress import duration


@dataclass(frozen=True)
class Line:
    """A row with the results of its finished runs."""

    row: Row
    results: Sequence[dict[str, Any]]

    def mean(self, metric: str) -> float:
        """Of all seeds, percent."""
        return statistics.fmean(result[metric] for result in self.results)

    def spread(self, metric: str) -> float:
        """Standard deviation over seeds (n - 1), percent; 0 of a single one."""
        values = [result[metric] for result in self.results]
        return statistics.stdev(values) if len(values) > 1 else 0.0


def markdown(
    table: int, lines: Sequence[Line], seeds: int, words: str, command: str, picture: str = ''
) -> str:
    """A table, how it was made, how its order compares with the paper's, and a link to its plot."""
    text = [
        f'## Table {table}',
        '',
        '| Row | AP in the paper | AP here | AP50 here | seeds |',
        '|---|---|---|---|---|',
    ]
    for line in lines:
        cells = [f'{line.row.ap:.1f}']
        if line.results:
            cells += [_cell(line, 'AP'), _cell(line, 'AP50'), str(len(line.results))]
        else:
            cells += ['-', '-', '0']
        text.append(f'| {line.row.label} | ' + ' | '.join(cells) + ' |')
    seconds = sum(result['seconds'] for line in lines for result in line.results)
    done = sum(len(line.results) for line in lines)
    total = f'{done} of {seeds * len(lines)} runs are done' if done < seeds * len(lines) else f'{done} runs'
    text += [
        '',
        f'Mean and standard deviation over seeds. {words} {total}, {duration(seconds)} of training and '
        'scoring in all.',
        '',
        order(lines),
        '',
        '```bash',
        command,
        '```',
    ]
    if picture:
        text += ['', f'![Table {table}: AP of every row, here and in the paper]({picture})']
    return '\n'.join(text) + '\n'


def _cell(line: Line, metric: str) -> str:
    spread = f' &plusmn; {line.spread(metric):.1f}' if len(line.results) > 1 else ''
    return f'{line.mean(metric):.1f}{spread}'


def order(lines: Sequence[Line]) -> str:
    """How many pairs of rows come in the paper's order, and how many in either by more than chance."""
    pairs = [
        (one, two) if one.row.ap < two.row.ap else (two, one)
        for one, two in itertools.combinations([line for line in lines if line.results], 2)
        if one.row.ap != two.row.ap
    ]
    if not pairs:
        return 'There are no two rows yet that the paper ranks.'
    gains = [better.mean('AP') - worse.mean('AP') for worse, better in pairs]
    agree = sum(gain > 0 for gain in gains)
    words = f'Of {len(pairs)} pairs of rows that the paper ranks, {agree} come in its order'
    several = [
        (gain, pair)
        for gain, pair in zip(gains, pairs, strict=True)
        if min(len(line.results) for line in pair) > 1
    ]
    if not several:
        return words + '; with a single seed nothing says how many of these are chance.'
    deviation = pooled_deviation(lines)
    clear = [
        gain
        for gain, pair in several
        if abs(gain) > 2 * deviation * sum(1 / len(line.results) for line in pair) ** 0.5
    ]
    against = sum(gain < 0 for gain in clear)
    which = f'Of the {len(several)} pairs of several seeds each, ' if len(several) < len(pairs) else ''
    return (
        f'{words}. {which}{len(clear)} differ by more than two standard errors (seeds of one row deviate by '
        f"{deviation:.1f} AP): {len(clear) - against} in the paper's order, {against} against it; the others "
        'are within the spread of the seeds.'
    )


def pooled_deviation(lines: Sequence[Line]) -> float:
    """Standard deviation over the seeds of a row, as if that of all rows were one: two seeds say little."""
    freedom = sum(max(0, len(line.results) - 1) for line in lines)
    squares = sum(line.spread('AP') ** 2 * (len(line.results) - 1) for line in lines if line.results)
    return (squares / freedom) ** 0.5


def put_section(path: Path, table: int, section: str) -> None:
    """Write a section into a file: in the place of its last version, or at the end, or into a new file."""
    begin, end = f'<!-- table {table} -->', f'<!-- end of table {table} -->'
    block = f'{begin}\n{section}{end}\n'
    text = path.read_text(encoding='utf-8') if path.is_file() else ''
    place = re.compile(f'{re.escape(begin)}\n.*?{re.escape(end)}\n', flags=re.DOTALL)
    if place.search(text):
        text = place.sub(lambda _: block, text, count=1)
    else:
        text = f'{text.rstrip()}\n\n{block}' if text.strip() else block
    with writing(path) as file:
        file.write(text)


def plot(path: Path, table: int, lines: Sequence[Line]) -> None:
    """Two panels with the same rows: every seed, mean and standard deviation here, and the paper's AP."""
    height = 34 * len(lines)
    page = Page(900, height + 130)
    page.text(16, 30, f'Table {table} at a small scale', size=14, weight='bold')
    left = page.axes(230, 62, 390, height)
    right = page.axes(660, 62, 220, height)
    here, paper = unit(DISTINCT[1]), unit(DISTINCT[0])
    for place, line in enumerate(lines):
        values = [result['AP'] for result in line.results]
        left.plot(values, [place] * len(values), 'o', ms=3.5, color=INK, mew=0, zorder=5)
        if values:
            left.errorbar(
                line.mean('AP'), place, xerr=line.spread('AP'), fmt='D', ms=6, color=here, capsize=4, lw=1.6
            )
        right.plot(line.row.ap, place, 'D', ms=6, color=paper)
        page.text(220, 62 + height * (place + 0.5) / len(lines), line.row.label, 10, ha='right', va='center')
    titles = ('AP here: seeds, mean, standard deviation', 'AP in the paper (COCO)')
    for axes, words in zip((left, right), titles, strict=True):
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_yticks(range(len(lines)), [''] * len(lines))
        axes.set_xlabel(words, fontsize=9.5)
        axes.tick_params(labelsize=9, length=0)
        axes.margins(x=0.12)
        axes.grid(color='#d8dee4', lw=0.7)
        axes.set_axisbelow(True)
        for side in ('top', 'right', 'left'):
            axes.spines[side].set_visible(False)
        axes.spines['bottom'].set_color(FAINT)
    page.save(path)
