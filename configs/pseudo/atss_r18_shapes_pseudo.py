# ATSS learns from what VL-SAM found: the training set that tools/pseudo_label.py wrote to data/pseudo, or to
# the folder that the environment names in PSEUDO_ROOT. Classes and the place of the images come from there.
# Made for the pictures of the small world (64 x 64 pixels), on a CPU, in minutes.
_base_ = '../demo/atss_r18_shapes.py'

from atss_ext.pseudo_labels import dataset_settings  # noqa: E402
from atss_ext.vlsam.world.scenes import SPEC  # noqa: E402

data_root = '{{$PSEUDO_ROOT:data/pseudo}}'
classes, images = dataset_settings(data_root, default=SPEC.category_names)
image_scale = (96, 96)  # larger than drawn: objects of 14 to 30 pixels are small for strides from 8
max_epochs = 10

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(
    _delete_=True,
    type='CocoDataset',
    data_prefix=dict(img=images),
    metainfo=dict(classes=classes),
)

model = dict(
    backbone=dict(base_channels=16, stem_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128]),
    bbox_head=dict(num_classes=len(classes)),
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        **dataset,
        ann_file=f'{data_root}/train.json',
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(**dataset, ann_file=f'{data_root}/val.json', test_mode=True, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}/val.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs, val_interval=5)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
# What is not a setting does not belong into the config that a run writes down.
del SPEC, dataset
