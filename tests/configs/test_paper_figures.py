"""docs/paper.md has every config of configs/paper with the figure of the literal table, in its section."""

import re
from pathlib import Path

import yaml
from paper_rows import ROWS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs/paper.md').read_text()
HEADINGS = {
    '## Table 1: ': 'table1', '## Table 2: ': 'table2', '## Table 3: ': 'table3', '## Table 4: ': 'table4',
    '## Table 5: ': 'table5', '## Table 6: ': 'table6', '## Table 7: ': 'table7', '## Table 8: ': 'table8',
    '## Model zoo': 'zoo',
}  # fmt: skip


def sections():
    """Config, AP and ours of every line of the tables, by the folder that their heading stands for."""
    found, folder = {}, None
    for line in PAGE.splitlines():
        if line.startswith('## '):
            folder = next((name for start, name in HEADINGS.items() if line.startswith(start)), None)
        elif line.startswith('| `'):
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            assert len(cells) == 4, line
            found.setdefault(folder, []).append((cells[0].strip('`'), cells[2], cells[3]))
    return found


def test_the_page_is_the_table():
    expected = {}
    for row in ROWS.values():
        folder = row.file.split('/')[0]
        expected.setdefault(folder, []).append((row.config, row.ap, 'not trained here'))
    assert sections() == expected


def test_no_two_rows_of_a_table_are_called_alike():
    rows = re.findall(r'^\| `(\w+?)_\S+` \| (.+?) \|', PAGE, flags=re.MULTILINE)
    assert len(rows) == len(ROWS)
    assert len(set(rows)) == len(rows)


def test_the_index_of_models_has_the_zoo():
    """What mim finds: all that are trained."""
    models = yaml.safe_load((ROOT / 'configs/atss/metafile.yml').read_text())['Models']
    assert {model['Name']: model['Config'] for model in models if 'paper' in model['Config']} == {
        row.config: f'configs/paper/{row.file}'
        for row in ROWS.values()
        if row.config.startswith('zoo') and row.tta == '-'
    }
