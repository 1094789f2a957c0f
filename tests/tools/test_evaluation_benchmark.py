"""tools/benchmarks/evaluation.py on tiny sets: all sides give the same figures, and the page is filled."""

import json

import pytest
from tiny_coco import REPO, load_tool

PAGE = """# Page

Before.

<!-- figures: begin -->

old figures

<!-- figures: end -->

After.
"""


def test_tiny_sets(run_tool, tmp_path):
    """Libraries that are not installed are left out; ours are not, and hotcoco comes with the tests."""
    page, out = tmp_path / 'page.md', tmp_path / 'made' / 'rows.json'
    page.write_text(PAGE)
    done = run_tool(
        'benchmarks/evaluation.py', '--quick', '--reference-images', 500, 1000, '--json', out,
        '--markdown', page, cwd=tmp_path, OMP_NUM_THREADS='1',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())['rows']
    lvis = 'LVIS boxes, {} images, 300 detections each'.format
    works = {
        'COCO boxes, 50 images, 100 detections each': 'CocoMetric',
        'COCO masks, 10 images, 100 detections each': 'CocoMetric',
        lvis(5): 'LvisMetric',
        lvis(10): 'LvisMetric',
        f'{lvis(198)}, from columns': 'LvisMetric',
    }
    assert list(dict.fromkeys(row['work'] for row in rows)) == list(works)
    for work, metric in works.items():
        sides = [row['side'] for row in rows if row['work'] == work]
        assert {'hotcoco', f'{metric}, fast', f'{metric}, reference'} <= set(sides)
    assert all(row['difference'] < 1e-9 and row['seconds'] > 0 and row['ratio'] > 0 for row in rows)
    text = page.read_text()
    assert 'old figures' not in text
    table = text[text.index('<!-- figures: begin -->') : text.index('<!-- figures: end -->')]
    assert table.count('| LvisMetric, fast |') == 3
    assert '`python tools/benchmarks/evaluation.py --quick --reference-images 500 1000`' in table
    assert text.startswith('# Page\n\nBefore.\n')
    assert text.endswith('<!-- figures: end -->\n\nAfter.\n')


def test_a_page_without_marks_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(REPO / 'tools/benchmarks')
    page = tmp_path / 'page.md'
    page.write_text('# Page\n')
    with pytest.raises(SystemExit) as ended:
        load_tool('benchmarks/evaluation.py').parse_args(['--markdown', str(page)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f'error: --markdown {page} needs a page with the lines <!-- figures: begin -->')
