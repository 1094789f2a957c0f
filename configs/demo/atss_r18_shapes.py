# `make demo`: ATSS learns the shapes world from scratch, on a CPU, in minutes.
_base_ = [
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/models/atss_r18_small.py',
]

max_epochs = 5

model = dict(
    # Half as wide as usual: a third of the time an image, so that there is time for three times as many.
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    bbox_head=dict(num_classes=8, norm_cfg=dict(type='BN', requires_grad=True)),
    # Low scores cost nothing in AP and may gain some.
    test_cfg=dict(score_thr=0.001),
)

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='coco/bbox_mAP', rule='greater'),
)
randomness = dict(seed=0)
