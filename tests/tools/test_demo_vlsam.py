"""The VL-SAM demo as users start it: the shipped weights give the published figures again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'vlsam_world'))

import ablation_table
import pages

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = json.loads((ROOT / 'docs/vlsam_world.json').read_text(encoding='utf-8'))
FIGURES = ('mAR', 'AR50', 'AR75', 'mask_mAR', 'named_mAR')


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """Folder and output of a whole demo; nothing may be fetched meanwhile."""
    folder = tmp_path_factory.mktemp('demo')
    result = subprocess.run(
        [sys.executable, str(ROOT / 'tools/vlsam_world/demo.py')],
        cwd=folder,
        env={**os.environ, 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / 'work_dirs/demo-vlsam', result.stdout


def test_the_weights_reproduce_the_published_table(demo):
    summary = json.loads((demo[0] / 'summary.json').read_text(encoding='utf-8'))
    published = PUBLISHED['first_scenes']
    assert summary['scenes'] == published['scenes'] == 50
    assert [row['name'] for row in summary['rows']] == [row['name'] for row in published['rows']]
    for row, expected in zip(summary['rows'], published['rows'], strict=True):
        for figure in FIGURES:
            assert row[figure] == pytest.approx(expected[figure], abs=0.01), (row['name'], figure)
    for figure in ('precision', 'recall'):
        assert summary[f'names_{figure}'] == pytest.approx(published['names'][figure], abs=0.01)
    for figure in ('oracle_ratio', 'paper_ratio'):
        assert summary[figure] == pytest.approx(published[figure], abs=0.01)


def test_the_demo_shows_the_table_and_pictures(demo):
    folder, output = demo
    summary = json.loads((folder / 'summary.json').read_text(encoding='utf-8'))
    best = next(row for row in summary['rows'] if row['name'] == "this world's settings")
    line = next(line for line in output.splitlines() if line.startswith("this world's settings  "))
    assert [float(value) for value in line.split()[-6:-1]] == [round(100 * best[name], 1) for name in FIGURES]
    assert '50/50 scenes' in output
    picture = cv2.imread(str(folder / 'pictures.png'))
    assert picture.shape[0] > 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_the_published_figures_keep_the_promises():
    assert PUBLISHED['scenes'] == 200
    assert PUBLISHED['split'] == 'held-out'
    assert min(PUBLISHED['names']['precision'], PUBLISHED['names']['recall']) >= 0.9
    assert min(PUBLISHED['oracle_ratio'], PUBLISHED['paper_ratio']) >= 0.74


def test_the_page_shows_the_published_table():
    section = pages.split_page(ROOT / 'docs/vlsam_world.md', 'table')[1]
    assert section == ablation_table.markdown(PUBLISHED)
