# `make demo`: ATSS learns the shapes world from scratch, on a CPU, in minutes.
_base_ = [
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/models/atss_r18_small.py',
    '../_base_/schedules/adamw_24e.py',
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

train_cfg = dict(max_epochs=max_epochs, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=4e-3, fused=True))
# A list is replaced as a whole, and what it was made of is the base's number of epochs.
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='coco/bbox_mAP', rule='greater'),
)
randomness = dict(seed=0)
