"""Every command of the README runs: as it stands, or with options appended that make it small.

Those on VL-SAM are run by test_vlsam_page.py, those of the small world by test_vlsam_world_page.py.
"""

import json
import re
import shutil
import subprocess
import sys

import test_vlsam_page
import test_vlsam_world_page
from doc_pages import ROOT, blocks_of, commands_of
from documented import IN_THIS_ENVIRONMENT, Commands, fill
from mmengine.config import Config

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

COMMANDS: dict[str, list[str]] = {
    'make demo': [*IN_THIS_ENVIRONMENT, TINY_DEMO],
    'make test': [*IN_THIS_ENVIRONMENT, 'ARGS=-q -n 1 tests/ops/test_gather_targets.py'],
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


def test_no_documented_command_goes_untried():
    tables = (COMMANDS, test_vlsam_page.COMMANDS, test_vlsam_world_page.COMMANDS)
    tried = sorted(line for table in tables for line in table)
    assert tried == sorted(commands_of('README.md', 'docs/vlsam.md', 'docs/vlsam_world.md'))


def test_commands_run_and_do_what_they_say(tmp_path):
    run = Commands(fill(tmp_path))
    work = tmp_path / WORK_DIR
    outputs = {}
    for line, appended in COMMANDS.items():
        outputs[line] = run(line, appended)
        if (work / 'epoch_1.pth').exists() and not (work / 'epoch_12.pth').exists():
            shutil.copy(work / 'epoch_1.pth', work / 'epoch_12.pth')
    summary = json.loads((tmp_path / 'demo/summary.json').read_text())
    assert summary['images'] == 8
    assert re.search(r'\d+ passed', outputs['make test'])
    detections = json.loads((tmp_path / 'detections.json').read_text())
    assert {row['image_id'] for row in detections} <= {0, 1, 2, 3}
    assert 'Training finished successfully' in outputs[f'mim train mmdet {COCO_CONFIG}']
    checked = outputs[f'python tools/analysis/check_config.py {COCO_CONFIG}']
    assert 'atss_ext.ATSSHead' in checked


def test_the_config_of_the_readme_is_the_shipped_one(tmp_path):
    snippet = blocks_of('README.md', 'python')[0]
    (tmp_path / 'snippet.py').write_text(snippet)
    written = Config.fromfile(tmp_path / 'snippet.py').model
    assert written == Config.fromfile(ROOT / COCO_CONFIG).model


def test_the_ops_of_the_readme_run(tmp_path):
    (snippet,) = [text for text in blocks_of('README.md', 'python') if 'from atss_ext import ops' in text]
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
