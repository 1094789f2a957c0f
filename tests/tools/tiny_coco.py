"""Tiny COCO data with literal boxes, and a config that trains on it within seconds."""

import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

REPO = Path(__file__).resolve().parents[2]

CONFIG = """
default_scope = 'mmdet'
classes = ('box', 'disc')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'))
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=3, deterministic=True)
model = dict(
    type='ATSS',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[128.0] * 3, std=[64.0] * 3, bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(
        type='ResNet', depth=18, base_channels=8, stem_channels=8, num_stages=4, out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, style='pytorch'),
    neck=dict(
        type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, start_level=1, add_extra_convs='on_output',
        num_outs=5),
    bbox_head=dict(
        type='atss_ext.ATSSHead', num_classes=2, in_channels=16, stacked_convs=1, feat_channels=16,
        norm_cfg=dict(type='GN', num_groups=4, requires_grad=True),
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
            strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)),
    train_cfg=dict(assigner=dict(type='atss_ext.ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(
        nms_pre=100, min_bbox_size=0, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.6), max_per_img=5))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
data_root = '{root}/'
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root=data_root, ann_file='train.json', data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes), filter_cfg=dict(filter_empty_gt=True, min_size=16),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=0, drop_last=False, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, ann_file='val.json', data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes), test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'val.json', metric='bbox')
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=6),
    dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=0.1),
]
"""

# (image, class, x, y, width, height); the fourth training image of a split has no box.
BOXES = {
    'train': [(0, 1, 8, 8, 24, 20), (0, 2, 36, 30, 20, 24), (1, 1, 4, 30, 30, 30), (2, 2, 20, 10, 40, 40)],
    'val': [(0, 1, 10, 10, 30, 20), (1, 2, 30, 24, 24, 30)],
}
IMAGES = {'train': 4, 'val': 2}


@dataclass(frozen=True)
class Tiny:
    """A folder with images, annotation files and a config."""

    root: Path
    config: Path

    def coco(self, split: str) -> dict:
        """The content of an annotation file."""
        return json.loads((self.root / f'{split}.json').read_text())

    def write(self, name: str, content: dict | str) -> Path:
        """Write an annotation file or a config."""
        path = self.root / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path


def write_split(root: Path, split: str) -> None:
    images, annotations = [], []
    for index in range(IMAGES[split]):
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        name = f'{split}_{index}.png'
        images.append({'id': index + 1, 'file_name': name, 'width': 64, 'height': 64})
        for image, category, x, y, w, h in BOXES[split]:
            if image == index:
                pixels[y : y + h, x : x + w] = (40, 220, 40) if category == 1 else (220, 40, 220)
                annotations.append({
                    'id': len(annotations) + 1, 'image_id': index + 1, 'category_id': category,
                    'bbox': [x, y, w, h], 'area': w * h, 'iscrowd': 0,
                })  # fmt: skip
        cv2.imwrite(str(root / 'images' / name), pixels)
    categories = [{'id': 1, 'name': 'box'}, {'id': 2, 'name': 'disc'}]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (root / f'{split}.json').write_text(json.dumps(content))


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command: this checkout's package, one thread, no GPU."""
    path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get('PYTHONPATH')])])
    return {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **extra}


def load_tool(script: str):
    """Import a script of tools/ as a module."""
    name = 'atss_tool_' + Path(script).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, REPO / 'tools' / script)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
