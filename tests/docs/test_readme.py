"""Every command of the README and the docs runs: as it stands, or with options appended that make it small.

The models that the commands name cannot be fetched here: tiny ones of the same classes lie in folders of the
same names.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from PIL import Image
from tiny_clip import tiny_clip
from tiny_sams import tiny_sam
from tiny_vlms import tiny_vlm

from atss_ext.vlsam.world.scenes import names_in_order, scene_of

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ('README.md', 'docs/vlsam.md', 'docs/vlsam_world.md')
COCO_CONFIG = 'configs/atss/atss_r50_fpn_1x_coco.py'
WORK_DIR = 'work_dirs/atss_r50_fpn_1x_coco'

# A ResNet-18 of 8 channels on 64x64 images instead of what the config says.
SMALL = [
    '--cfg-options',
    'model.backbone.depth=18',
    'model.backbone.base_channels=8',
    'model.backbone.frozen_stages=-1',
    'model.backbone.init_cfg=None',
    'model.neck.in_channels=[8,16,32,64]',
    'model.neck.out_channels=64',
    'model.bbox_head.in_channels=64',
    'model.bbox_head.feat_channels=64',
    'model.bbox_head.stacked_convs=1',
    'model.test_cfg.score_thr=0.0',
    'train_pipeline.2.scale=(64,64)',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(64,64)',
    'test_dataloader.dataset.pipeline.1.scale=(64,64)',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
    'train_cfg.max_epochs=1',
]
TINY_DEMO = 'ARGS=--epochs 1 --train-images 16 --val-images 8 --work-dir {tmp}/demo --data-root {tmp}/shapes'
IN_THIS_ENVIRONMENT = ['VENV=', f'PYTHON={sys.executable}']

# README line -> what is appended here; in this order, because later commands use what earlier ones wrote.
COMMANDS: dict[str, list[str]] = {
    'make demo': [*IN_THIS_ENVIRONMENT, TINY_DEMO],
    'make test': [*IN_THIS_ENVIRONMENT, 'ARGS=-q tests/ops/test_native.py'],
    'make lint': IN_THIS_ENVIRONMENT,
    'pip install torch torchvision "setuptools>=70.1,<81" ninja': ['--dry-run'],
    'pip install --no-build-isolation -e ".[mmdet]"': ['--dry-run'],
    f'python tools/train.py {COCO_CONFIG} --amp --auto-scale-lr': SMALL,
    f'python tools/train.py {COCO_CONFIG} --resume': SMALL,
    f'python tools/test.py {COCO_CONFIG} {WORK_DIR}/epoch_12.pth --out detections.json': SMALL,
    f'tools/dist_train.sh {COCO_CONFIG} 8': SMALL,
    f'python tools/analysis/check_config.py {COCO_CONFIG}': [],
    'pip install --no-build-isolation -e ".[mmdet,mim]"': ['--dry-run'],
    'pip install --no-deps openmim': ['--dry-run'],
    f'mim train mmdet {COCO_CONFIG}': ['--gpus', '0', *SMALL],
}
MODELS = {
    'llava-hf/llava-1.5-7b-hf': (tiny_vlm, 'llava'),
    'Qwen/Qwen2.5-VL-7B-Instruct': (tiny_vlm, 'qwen2_5_vl'),
    'facebook/sam-vit-huge': (tiny_sam, 'sam'),
    'facebook/sam2.1-hiera-large': (tiny_sam, 'sam2'),
}
SHORT = ['--cfg-options', 'model.vlm.max_new_tokens=8', 'model.questions=single']
VLSAM = 'configs/vlsam/vlsam_'
LVIS = 'configs/lvis/vlsam_llava1.5-7b_sam-vit-h_lvis-minival.py'
COMMANDS |= {
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
TABLE = 'docs/vlsam_world'
FEW_STEPS = ['--steps', '2', '--batch', '2', '--scenes', '8', '--check-scenes', '2']
COMMANDS |= {
    'make demo-vlsam': [*IN_THIS_ENVIRONMENT, 'ARGS=--scenes 2 --work-dir {tmp}/demo-vlsam'],
    'python tools/vlsam.py picture.png --config configs/vlsam/vlsam_world.py --maps': [],
    'python tools/vlsam_world/train_vlm.py': FEW_STEPS,
    'python tools/vlsam_world/train_sam.py': FEW_STEPS,
    'python tools/vlsam_world/ship.py': ['--out', 'shipped'],  # not into the package
    'python tools/vlsam_world/ship.py --card-only': ['--out', 'shipped'],
    'python tools/vlsam_world/prompt_study.py': ['--scenes', '2'],
    'python tools/vlsam_world/row_rules.py --scenes 300': ['--scenes', '2'],
    f'python tools/vlsam_world/ablation.py --json {TABLE}.json --page {TABLE}.md': ['--scenes', '1'],
}
AT_ROOT = ('make', 'pip')


def documented_commands() -> list[str]:
    texts = [(ROOT / name).read_text() for name in DOCUMENTS]
    blocks = [block for text in texts for block in re.findall(r'```bash\n(.*?)```', text, flags=re.DOTALL)]
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return sorted({line for line in lines if line and not line.startswith('#')})


def test_no_documented_command_goes_untried():
    assert documented_commands() == sorted(COMMANDS)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A working directory as the README assumes it: configs, tools and a tiny data/coco."""
    folder = tmp_path_factory.mktemp('readme')
    (folder / 'configs').symlink_to(ROOT / 'configs')
    (folder / 'tools').symlink_to(ROOT / 'tools')
    coco = folder / 'data/coco'
    (coco / 'annotations').mkdir(parents=True)
    categories = [{'id': i + 1, 'name': name} for i, name in enumerate(CocoDataset.METAINFO['classes'])]
    for split in ('train2017', 'val2017'):
        (coco / split).mkdir()
        images, annotations = [], []
        for i in range(4):
            picture = np.full((64, 64, 3), 30, np.uint8)
            picture[8:40, 10 + i : 50] = 200
            cv2.imwrite(str(coco / split / f'{i}.jpg'), picture)
            images.append({'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 64})
            box = [10 + i, 8, 40 - i, 32]
            area = box[2] * box[3]
            fields = {'id': i + 1, 'image_id': i, 'category_id': 3, 'bbox': box, 'area': area}
            x, y, w, h = box
            corners = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append({**fields, 'iscrowd': 0, 'segmentation': corners})
        document = {'images': images, 'annotations': annotations, 'categories': categories}
        (coco / f'annotations/instances_{split}.json').write_text(json.dumps(document))
    (folder / 'data/coda').mkdir()
    (folder / 'data/coda/corner_case.json').write_text(json.dumps(document))
    (coco / 'annotations/lvis_v1_minival_inserted_image_name.json').write_text(json.dumps(as_lvis(document)))
    (folder / 'data/coda/images').symlink_to(coco / 'val2017')
    (folder / 'data/images').symlink_to(coco / 'val2017')
    add_models(folder)
    return folder


def as_lvis(document: dict) -> dict:
    federated = {'neg_category_ids': [1], 'not_exhaustive_category_ids': []}
    images = [{**image, **federated} for image in document['images']]
    categories = [{**one, 'frequency': 'frc'[one['id'] % 3]} for one in document['categories']]
    return {**document, 'images': images, 'categories': categories}


def add_models(folder: Path) -> None:
    """Tiny models by the names the commands use, pictures and a video."""
    for name, (build, family) in MODELS.items():
        for part in build(family):
            part.save_pretrained(folder / name)
    tiny_clip(folder / 'openai/clip-vit-large-patch14')  # reads the names that come out
    (folder / 'photos').mkdir()
    rng = np.random.default_rng(0)
    for path in ('street.jpg', 'photos/1.jpg', 'photos/2.png'):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(folder / path)
    video = cv2.VideoWriter(str(folder / 'drive.avi'), cv2.VideoWriter.fourcc(*'FFV1'), 10, (80, 60))
    for _ in range(8):
        video.write(rng.integers(0, 255, (60, 80, 3), np.uint8))
    video.release()
    # What the tools of the small world find and fill.
    Image.fromarray(scene_of('check', 0).image).save(folder / 'picture.png')
    (folder / 'docs').mkdir()
    shutil.copy(ROOT / 'docs/vlsam_world.md', folder / 'docs')


def run(line: str, folder: Path) -> subprocess.CompletedProcess:
    extra = [part.format(tmp=folder) if part.startswith('ARGS') else part for part in COMMANDS[line]]
    words = shlex.split(line)
    words = [sys.executable, *words[1:]] if words[0] == 'python' else words
    words = [sys.executable, '-m', *words] if words[0] in ('pip', 'mim') else words
    words = [*words[:-1], '2'] if words[0].startswith('tools/dist') else words  # two cores, not eight GPUs
    # The scripts call `python`, as in an activated environment.
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    return subprocess.run(
        [*words, *extra],
        cwd=ROOT if line.startswith(AT_ROOT) else folder,
        env={**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def test_commands_run_and_do_what_they_say(folder):
    outputs = {}
    work = folder / WORK_DIR
    for line in COMMANDS:
        result = run(line, folder)
        assert result.returncode == 0, f'{line}\n{result.stdout[-4000:]}'
        outputs[line] = result.stdout
        if (work / 'epoch_1.pth').exists() and not (work / 'epoch_12.pth').exists():
            shutil.copy(work / 'epoch_1.pth', work / 'epoch_12.pth')
    summary = json.loads((folder / 'demo/summary.json').read_text())
    assert summary['images'] == 8
    assert re.search(r'\d+ passed', outputs['make test'])
    detections = json.loads((folder / 'detections.json').read_text())
    assert {row['image_id'] for row in detections} <= {0, 1, 2, 3}
    assert 'Training finished successfully' in outputs[f'mim train mmdet {COCO_CONFIG}']
    checked = outputs[f'python tools/analysis/check_config.py {COCO_CONFIG}']
    assert 'atss_ext.ATSSHead' in checked
    assert len(json.loads((folder / 'work_dirs/vlsam/street/annotations.json').read_text())['images']) == 1
    world = json.loads((folder / 'work_dirs/vlsam/picture/annotations.json').read_text())
    assert {one['name'] for one in world['categories']} == set(names_in_order(scene_of('check', 0)))
    assert json.loads((folder / 'demo-vlsam/summary.json').read_text())['scenes'] == 2
    assert json.loads((folder / 'docs/vlsam_world.json').read_text())['scenes'] == 1
    assert (folder / 'shipped/README.md').is_file()
    assert list((folder / 'work_dirs/vlsam/photos/yolo-polygons/labels').glob('*.txt'))
    assert (folder / 'work_dirs/vlsam/drive/drive.mp4').exists()
    coda = outputs['python tools/test.py configs/coda/vlsam_llava1.5-7b_sam-vit-h_coda.py']
    assert 'coda/bbox_CORNER_mAR: ' in coda
    (lvis,) = (output for line, output in outputs.items() if LVIS in line)
    assert 'lvis/segm_fixed_AP: ' in lvis


def test_the_python_of_open_ended_detection_runs(folder):
    snippets = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), flags=re.DOTALL)
    (snippet,) = [text for text in snippets if 'vlsam import load' in text]
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


def test_the_config_of_the_readme_is_the_shipped_one(tmp_path):
    snippet = re.search(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), flags=re.DOTALL).group(1)
    (tmp_path / 'snippet.py').write_text(snippet)
    written = Config.fromfile(tmp_path / 'snippet.py').model
    assert written == Config.fromfile(ROOT / COCO_CONFIG).model


def test_the_ops_of_the_readme_run(tmp_path):
    snippets = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), flags=re.DOTALL)
    (snippet,) = [text for text in snippets if 'from atss_ext import ops' in text]
    script = """
import torch
priors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 0, 16, 16]])
gts, offsets, level_sizes = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([0, 1]), [2, 1]
{}
print(ious.shape, result.assigned.tolist())
"""
    (tmp_path / 'snippet.py').write_text(script.format(snippet))
    done = subprocess.run(
        [sys.executable, 'snippet.py'], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == 'torch.Size([3, 1]) [[1, 0, 0]]\n'
