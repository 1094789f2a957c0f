"""How the figures of attention_flow.py are shown: tables, sentences, plot. Needs no torch."""

import os
from pathlib import Path
from typing import Any

from _report import significant, times
from render import head_lines, table

OURS, LITERAL = 'ours', 'literal, float64'
GROWING = (OURS, LITERAL, 'literal, float32')
# What ours has to reach against the literal form, in time and in memory.
AT_LEAST = 20
# What is measured, and its name.
UNITS = {'seconds': 's', 'mb': 'peak MB'}
HEADINGS = (
    ('way', 's (fastest-slowest)', 'peak MB', 'ours is faster', 'ours is smaller', 'greatest relative error'),
    ('---', '--:', '--:', '--:', '--:', '--:'),
)


def lines(result: dict[str, Any], plot: Path | None = None, page: Path | None = None) -> list[str]:
    """Everything as Markdown; ``plot`` is linked from ``page``."""
    text = [*head_lines(result), '', sizes(result['case']), '']
    text += [*table(HEADINGS, side_cells(result['sides'])), '', *verdict(result), '', floor(result)]
    for key, fixed in (('tokens', 'layers'), ('layers', 'tokens')):
        text += ['', *growth_table(result['growth'], key, fixed), '', growth_sentence(result['growth'], key)]
    if plot and page:
        link = os.path.relpath(plot, page.parent).replace(os.sep, '/')
        text += ['', f'![Time and memory of the attention flow against tokens and layers]({link})']
    return text


def sizes(case: dict[str, int]) -> str:
    """What was measured, in words."""
    return (
        f'{case["tokens"]:,} tokens, {case["layers"]} layers, {case["heads"]} heads of {case["depth"]} '
        f'channels, {case["objects"]} objects, q and k in float32:'
    )


def side_cells(sides: list[dict[str, Any]]) -> list[list[str]]:
    """A row a way; the ratios say how ours compares with it."""
    ours = sides[0]
    rows = []
    for side in sides:
        span = f'{significant(side["fastest"])}-{significant(side["slowest"])}'
        row = [side['side'], f'{significant(side["seconds"])} ({span})', significant(side['mb'])]
        ratios = [times(side[key] / ours[key]) if side is not ours else '-' for key in ('seconds', 'mb')]
        rows.append([*row, *ratios, '-' if side['side'] == LITERAL else f'{side["error"]:.1e}'])
    return rows


def verdict(result: dict[str, Any]) -> list[str]:
    """Whether ours reached what it has to, and against whom it would not."""
    by_name = {side['side']: side for side in result['sides']}
    ours = by_name[OURS]
    text = []
    for key, words in (('seconds', 'faster'), ('mb', 'smaller')):
        ratio = by_name[LITERAL][key] / ours[key]
        how = 'reached' if ratio >= AT_LEAST else 'missed'
        text.append(f'At least {AT_LEAST}x {words} than the literal float64 form: {how}, {times(ratio)}.')
    missed = [
        f'{name} ({times(side["seconds"] / ours["seconds"])})'
        for name, side in by_name.items()
        if not name.startswith(OURS) and name != LITERAL and side['seconds'] < AT_LEAST * ours['seconds']
    ]
    if missed:
        text.append(f'Less than {AT_LEAST}x faster than: {"; ".join(missed)}.')
    return text


def floor(result: dict[str, Any]) -> str:
    """What the products of q and k alone take at the machine's best rate."""
    case = result['case']
    pairs = case['tokens'] * (case['tokens'] + 1) // 2
    operations = 2 * case['depth'] * pairs * case['heads'] * case['layers']
    least = operations / result['matmul_rate']
    literal = next(side['seconds'] for side in result['sides'] if side['side'] == LITERAL)
    ours = result['sides'][0]['seconds']
    return (
        f'The floor: the causal half of the products of q and k is {operations / 1e9:,.3g} billion '
        f'operations. At {result["matmul_rate"] / 1e9:,.0f} GFLOPS, what torch reaches on large float32 '
        f'matrices here, they alone take {significant(least)} s; ours takes {ours / least:.2f} times that. '
        f'Nothing that multiplies them at that rate could be more than {times(literal / least)} faster than '
        'the literal float64 form.'
    )


def growth_table(growth: dict[str, dict[str, list[dict]]], key: str, fixed: str) -> list[str]:
    """Seconds and MB of each way, a line a point."""
    ours = growth[key][OURS]
    head = [f'{key} ({ours[0][fixed]:,} {fixed})']
    head += [f'{side}: {unit}' for unit in ('s', 'MB') for side in GROWING]
    body = []
    for index, point in enumerate(ours):
        found = [growth[key][side][index] for side in GROWING]
        body.append([f'{point[key]:,}', *(significant(one[unit]) for unit in UNITS for one in found)])
    return table((head, ['--:'] * len(head)), body)


def growth_sentence(growth: dict[str, dict[str, list[dict]]], key: str) -> str:
    """By what factors time and memory grow from the first to the last point."""
    text = []
    for side in GROWING:
        first, *_, last = growth[key][side]
        seconds, memory = (last[unit] / first[unit] for unit in UNITS)
        text.append(f'{side}: time {times(seconds)}, memory {times(memory)}')
    start, *_, end = (point[key] for point in growth[key][OURS])
    return f'From {start:,} to {end:,} {key}, {times(end / start)}: {"; ".join(text)}.'


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw time and memory over tokens and layers into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.4), layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 2, sharex='col')
    for column, (key, fixed) in enumerate((('tokens', 'layers'), ('layers', 'tokens'))):
        for row, (value, label) in enumerate(UNITS.items()):
            axes = grid[row, column]
            for side in GROWING:
                some = result['growth'][key][side]
                axes.plot([one[key] for one in some], [one[value] for one in some], marker='o', label=side)
            axes.set(xscale='log', yscale='log', ylabel=label)
            axes.grid(which='both', alpha=0.2)
        ticks = [one[key] for one in some]
        grid[1, column].set_xticks(ticks, [f'{tick:,}' for tick in ticks], rotation=45)
        grid[1, column].tick_params(axis='x', which='minor', labelbottom=False)
        grid[1, column].set(xlabel=f'{key}, log scale')
        grid[0, column].set(title=f'{some[0][fixed]:,} {fixed}')
    grid[0, 0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
