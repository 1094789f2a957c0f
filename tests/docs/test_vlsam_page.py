"""Every command on VL-SAM of the README and of docs/vlsam.md runs, and the README's Python."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import blocks_of
from documented import Commands, fill

SHORT = ['--cfg-options', 'model.vlm.max_new_tokens=8', 'model.questions=single']
VLSAM = 'configs/vlsam/vlsam_'
LVIS = 'configs/lvis/vlsam_llava1.5-7b_sam-vit-h_lvis-minival.py'
COMMANDS: dict[str, list[str]] = {
    'pip install --no-build-isolation -e ".[mmdet,vlsam]"': ['--dry-run'],
    'python tools/vlsam.py street.jpg --vlm llava-hf/llava-1.5-7b-hf --segmenter facebook/sam-vit-huge': [
        '--quick'
    ],
    f'python tools/vlsam.py photos --config {VLSAM}qwen2.5-vl-7b_sam2.1-l.py --format coco yolo-polygons': [
        '--quick',
        '--cfg-options',
        'vlm.max_new_tokens=8',
    ],
    f'python tools/test.py {LVIS} --out detections.json': SHORT,
    f'python tools/vlsam.py street.jpg --config {VLSAM}llava1.5-7b_sam-vit-h.py --maps': [
        '--out=maps',
        *('--cfg-options', 'vlm.max_new_tokens=8', 'questions=single'),
    ],
    'python tools/vlsam.py photos --vlm llava-hf/llava-1.5-7b-hf --segmenter facebook/sam-vit-huge --quick': [
        '--out=quick'
    ],
    f'python tools/vlsam.py drive.avi --config {VLSAM}qwen2.5-vl-7b_sam2.1-l.py --every 5 --format coco '
    'yolo-boxes': ['--quick', '--cfg-options', 'vlm.max_new_tokens=8'],
    'python tools/test.py configs/coda/vlsam_llava1.5-7b_sam-vit-h_coda.py': SHORT,
    f'tools/dist_test.sh {VLSAM}llava1.5-7b_sam-vit-h.py none 8': SHORT,
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp('vlsam'))


def test_commands_run_and_do_what_they_say(folder):
    run = Commands(folder)
    outputs = {line: run(line, appended) for line, appended in COMMANDS.items()}
    detections = json.loads((folder / 'detections.json').read_text())
    assert {row['image_id'] for row in detections} <= {0, 1, 2, 3}
    assert len(json.loads((folder / 'work_dirs/vlsam/street/annotations.json').read_text())['images']) == 1
    assert list((folder / 'work_dirs/vlsam/photos/yolo-polygons/labels').glob('*.txt'))
    assert (folder / 'work_dirs/vlsam/drive/drive.mp4').exists()
    coda = outputs['python tools/test.py configs/coda/vlsam_llava1.5-7b_sam-vit-h_coda.py']
    assert 'coda/bbox_CORNER_mAR: ' in coda
    (lvis,) = (output for line, output in outputs.items() if LVIS in line)
    assert 'lvis/segm_fixed_AP: ' in lvis


def test_the_python_of_open_ended_detection_runs(folder):
    (snippet,) = [text for text in blocks_of('README.md', 'python') if 'vlsam import load' in text]
    # A model that has learned nothing never ends its answer; fifty of 256 tokens would take minutes.
    short = (
        'import functools, atss_ext.vlsam.loading as loading\n'
        'loading.TransformersVLM = functools.partial(loading.TransformersVLM, max_new_tokens=8)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', short + snippet],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith(', 60, 80)')


def test_a_model_of_ones_own_is_taken(folder, monkeypatch):
    """The block of docs/vlsam.md, whose model has no words yet."""
    (snippet,) = blocks_of('docs/vlsam.md', 'python')
    (folder / 'own.py').write_text(snippet)
    monkeypatch.chdir(folder)
    own = runpy.run_path('own.py')
    assert type(own['vlsam'].vlm) is own['MyVLM']
    assert type(own['vlsam'].segmenter.model).__name__ == 'SamModel'
