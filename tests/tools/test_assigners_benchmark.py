"""The benchmark of assigners that go by predictions on tiny inputs; how fast anything is, no test says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_coco import REPO, environment
from warm import run_warm

PAGE = 'before\n<!-- assigners: begin -->\nold\n<!-- assigners: end -->\nafter\n'
RULES = ['TaskAlignedAssigner', 'SimOTAAssigner', 'DynamicSoftLabelAssigner']


def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPO / 'tools/benchmarks/assigners.py'), *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope='module')
def quick(tmp_path_factory) -> tuple[Path, dict]:
    """Folder and result of one quick run."""
    folder = tmp_path_factory.mktemp('assigners')
    (folder / 'page.md').write_text(PAGE)
    done = run('--quick', '--rounds', '2', '--json', 'a/b.json', '--markdown', 'page.md', cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, json.loads((folder / 'a/b.json').read_text())


def test_rows(quick):
    rows = quick[1]['rows']
    timed = [row for row in rows if row['ours_ms'] is not None]
    assert [row['against'] for row in timed] == [f'mmdet {name}' for name in [*RULES, RULES[0]]]
    assert all(row['ours_ms'] > 0 and row['theirs_ms'] > 0 for row in timed)
    assert [row['at_least'] for row in timed] == [20, 20, None, 20]
    weighed = [row for row in rows if row['ours_mb'] is not None]
    assert [row['against'] for row in weighed] == [f'mmdet {RULES[0]}', None]
    assert all(row['theirs_mb'] is not None for row in weighed if row['against'])
    assert quick[1]['failed'] == []


def test_the_page_is_filled(quick):
    text = (quick[0] / 'page.md').read_text()
    assert text.startswith('before\n<!-- assigners: begin -->\n')
    assert text.endswith('<!-- assigners: end -->\nafter\n')
    assert 'A quick run on tiny inputs: the figures mean nothing.' in text
    assert text.count('| SimOTAAssigner, half-trained, B = 1, N = a few, M = 5, C = 80') == 1
    assert 'old' not in text


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (['--rounds', '0'], 'argument --rounds: must be an integer of at least 1, but is 0'),
        (['--markdown', 'gone.md'], '--markdown: gone.md does not exist; name the page to fill'),
    ],
)
def test_a_bad_option_is_one_sentence(options, sentence, tmp_path):
    done = run_warm([REPO / 'tools/benchmarks/assigners.py', *options], tmp_path, environment())
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith(f'error: {sentence}')]
    assert 'Traceback' not in done.stderr
