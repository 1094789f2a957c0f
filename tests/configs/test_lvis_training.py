"""tools/train.py on a small LVIS of 1,203 categories: a few steps, then LVIS's figures."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm import run_warm

from atss_ext.datasets import LvisDataset

ROOT = Path(__file__).resolve().parents[2]
SIDE, CROWD = 96, 330
CONFIG = """
_base_ = {base!r}

model = dict(
    backbone=dict(depth=18, base_channels=8, frozen_stages=-1, init_cfg=None, norm_eval=False),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=1),
)
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=(96, 96))
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(96, 96))
here = {data!r}
train_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(
        # A category of one image in twelve: sqrt(0.5 * 12) = 2.4, and so three times.
        oversample_thr=0.5,
        dataset=dict(data_root=here, pipeline=train_pipeline)),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root=here, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=here + '/annotations/lvis_v1_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
env_cfg = dict(cudnn_benchmark=False)
"""


def content(folder, contents):
    """A file as LVIS v1's: images without a file_name, and all 1,203 categories."""
    classes = LvisDataset.METAINFO['classes']
    annotations = [
        {'id': 1000 * image + place, 'image_id': image, 'category_id': category, 'bbox': [x, y, w, h],
         'area': w * h, 'segmentation': [[x, y, x + w, y, x, y + h]]}
        for image, some in contents.items() for place, (category, (x, y, w, h)) in enumerate(some)
    ]  # fmt: skip
    images = [
        {'id': image, 'width': SIDE, 'height': SIDE, 'neg_category_ids': [7],
         'not_exhaustive_category_ids': [],
         'coco_url': f'http://images.cocodataset.org/{folder}/{image:012}.jpg'} for image in contents
    ]  # fmt: skip
    categories = [
        {'id': place, 'name': name, 'synset': f'{name}.n.01', 'synonyms': [name], 'def': '',
         'frequency': 'rcf'[place % 3], 'image_count': 1, 'instance_count': 1}
        for place, name in enumerate(classes, 1)
    ]  # fmt: skip
    return {'images': images, 'annotations': annotations, 'categories': categories}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """12 images to train on, the first with 330 objects of 330 categories, and two to validate on."""
    root = tmp_path_factory.mktemp('lvis')
    rng = np.random.default_rng(0)
    crowd = [
        (873 + place, [*rng.integers(0, 70, 2).tolist(), *rng.integers(8, 25, 2).tolist()])
        for place in range(CROWD)
    ]
    plain = [(1, [10, 10, 40, 50])]
    splits = {
        'train': content('train2017', {1: crowd, **{image: plain for image in range(2, 13)}}),
        'val': content('val2017', {21: plain, 22: [*plain, (1203, [40, 40, 30, 30])]}),
    }
    (root / 'annotations').mkdir()
    for split, file in splits.items():
        (root / f'{split}2017').mkdir()
        (root / f'annotations/lvis_v1_{split}.json').write_text(json.dumps(file))
        for image in file['images']:
            pixels = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(pixels).save(root / f'{split}2017/{image["id"]:012}.jpg')
    return root


def test_a_small_lvis_trains_and_is_scored(data, tmp_path):
    config = tmp_path / 'small.py'
    base = str(ROOT / 'configs/lvis/atss_r50_fpn_sample1e-3_1x_lvis-v1.py')
    config.write_text(CONFIG.format(base=base, data=str(data)))
    words = [ROOT / 'tools/train.py', config, '--work-dir', tmp_path / 'work']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    done = run_warm(words, tmp_path, environment)
    assert done.returncode == 0, done.stderr
    scalars = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()
    entries = [json.loads(line) for line in scalars]
    losses = [entry['loss'] for entry in entries if 'loss' in entry]
    assert len(losses) == 7  # 11 images once and one three times, two at a time
    assert all(math.isfinite(loss) for loss in losses)
    figures = entries[-1]
    # id 1 is common ('rcf'[1 % 3]), 1203 is rare; nothing in the file is frequent.
    assert figures['lvis/bbox_APf'] == -1
    for name in ('AP', 'AP50', 'APr', 'APc', 'AR@300'):
        assert 0 <= figures[f'lvis/bbox_{name}'] <= 1
