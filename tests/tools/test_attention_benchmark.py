"""The benchmark of the attention flow on tiny inputs; how fast anything is, no test says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from tiny_coco import REPO, environment
from warm import run_warm

PAGE = 'before\n<!-- cpu: begin -->\nold\n<!-- cpu: end -->\nafter\n'
SIDES = [
    'ours',
    'ours, PyTorch alone',
    'literal, float64',
    'literal, float32',
    'tuned, float64',
    'tuned, float32',
]


def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPO / 'tools/benchmarks/attention_flow.py'), *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope='module')
def quick(tmp_path_factory) -> tuple[Path, dict]:
    """Folder and result of one quick run."""
    folder = tmp_path_factory.mktemp('attention')
    (folder / 'page.md').write_text(PAGE)
    options = [
        '--quick',
        '--threads',
        '1',
        '--json',
        'a/b.json',
        '--plot',
        'c/a.png',
        '--markdown',
        'page.md',
    ]
    done = run(*options, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, json.loads((folder / 'a/b.json').read_text())


def test_every_way_gives_the_same_rows(quick):
    sides = quick[1]['sides']
    assert [side['side'] for side in sides] == SIDES
    assert {side['side'] for side in sides if side['error'] == 0} >= {'literal, float64'}
    assert all(side['error'] < 1e-5 for side in sides)
    # float32 rounds, float64 does not: the opponents really compute in what they are called by.
    by_name = {side['side']: side['error'] for side in sides}
    assert all((by_name[name] > 1e-9) == ('float64' not in name) for name in SIDES)


def test_every_figure_is_there(quick):
    _, result = quick
    for side in result['sides']:
        assert 0 < side['fastest'] <= side['seconds'] <= side['slowest']
        assert side['mb'] > 0
    assert result['case'] == {'tokens': 64, 'layers': 2, 'heads': 4, 'depth': 16, 'objects': 2}
    assert result['threads'] == 1
    assert result['matmul_rate'] > 0
    for key, values in (('tokens', [32, 64]), ('layers', [1, 2])):
        assert set(result['growth'][key]) == {'ours', 'literal, float64', 'literal, float32'}
        for points in result['growth'][key].values():
            assert [point[key] for point in points] == values
            assert all(point['seconds'] > 0 and point['mb'] > 0 for point in points)
    assert result['command'] == (
        'python tools/benchmarks/attention_flow.py --json b.json --threads 1 --quick --plot a.png '
        '--markdown page.md'
    )


def test_the_page_is_filled(quick):
    folder, result = quick
    page = (folder / 'page.md').read_text()
    assert page.startswith('before\n<!-- cpu: begin -->\n')
    assert page.endswith('<!-- cpu: end -->\nafter\n')
    assert 'old' not in page
    assert '**A quick run on tiny inputs: the figures mean nothing.**' in page
    for side in result['sides']:
        (line,) = [line for line in page.splitlines() if line.startswith(f'| {side["side"]} |')]
        if side['side'] != 'ours':
            ratio = side['seconds'] / result['sides'][0]['seconds']
            assert f'| {ratio:,.{2 if ratio < 10 else 0}f}x |' in line
    assert re.search(r'At least 20x faster than the literal float64 form: (reached|missed), [\d.,]+x\.', page)
    assert '![Time and memory of the attention flow against tokens and layers](c/a.png)' in page
    picture = cv2.imread(str(folder / 'c/a.png'))
    assert picture.std() > 10


def test_a_page_without_the_section_is_refused_at_once(tmp_path):
    (tmp_path / 'page.md').write_text('nothing')
    words = [REPO / 'tools/benchmarks/attention_flow.py', '--quick', '--markdown', 'page.md']
    done = run_warm(words, tmp_path, environment())
    assert done.returncode == 2
    assert done.stderr == (
        'error: --markdown: page.md has no section between <!-- cpu: begin --> and <!-- cpu: end -->; '
        'add these lines\n'
    )
