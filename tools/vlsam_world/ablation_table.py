"""The ablation as a table for people."""

from collections.abc import Mapping
from typing import Any

_COLUMNS = ('mAR', 'AR50', 'AR75', 'mask_mAR', 'named_mAR')
_HEADS = ('', 'mAR', 'AR50', 'AR75', 'mask mAR', 'mAR with its name', 'detections an image')


def markdown(table: Mapping[str, Any]) -> str:
    """A paragraph on what was measured, and the table in Markdown.

    Args:
        table: as ``ablation.run`` returns it; command, split and seed are told if they are there.
    """
    names = table['names']
    head = f'{table["scenes"]} scenes'
    if 'command' in table:
        head = f'`{table["command"]}`: {head} of the split "{table["split"]}" (seed {table["seed"]})'
    ratios = [("this world's settings reach", table['oracle_ratio'])]
    if table['paper_ratio'] is not None:
        ratios.insert(0, ('the whole method of the paper reaches', table['paper_ratio']))
    reached = ', '.join(f'{words} {100 * ratio:.0f}%' for words, ratio in ratios)
    lines = [
        f'{head}. Names, asked once about the whole scene: precision {names["precision"]:.3f}, recall '
        f'{names["recall"]:.3f}; {100 * names["exact"]:.0f}% of the sentences are right to the letter. Of '
        f'the mAR of the oracle {reached}.',
        '',
        _line(_HEADS),
        '|---' + '|--:' * (len(_HEADS) - 1) + '|',
    ]
    for row in table['rows']:
        shown = [f'{100 * row[column]:.1f}' for column in _COLUMNS]
        lines.append(_line((row['name'], *shown, f'{row["detections"]:.1f}')))
    return '\n'.join(lines)


def _line(cells: tuple[str, ...]) -> str:
    return f'| {" | ".join(cells)} |'


def plain(table: Mapping[str, Any]) -> str:
    """The table for a terminal: names, then a line a row.

    Args:
        table: as ``ablation.run`` returns it.
    """
    names, width = table['names'], max(len(row['name']) for row in table['rows'])
    lines = [
        f'names in {table["scenes"]} scenes: '
        f'precision {names["precision"]:.3f}, recall {names["recall"]:.3f}',
        '',
        ' ' * width + ''.join(f'{head:>10}' for head in (*_COLUMNS, 'found')),
    ]
    for row in table['rows']:
        shown = [*(100 * row[column] for column in _COLUMNS), row['detections']]
        lines.append(f'{row["name"]:<{width}}' + ''.join(f'{value:>10.1f}' for value in shown))
    lines += ['', f"this world's settings reach {100 * table['oracle_ratio']:.0f}% of the oracle's mAR", '']
    return '\n'.join(lines)
