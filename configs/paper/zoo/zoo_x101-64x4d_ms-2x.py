# ATSS, ResNeXt-101-64x4d, 24 epochs at 640 to 800 pixels: 45.5 AP on minival.
_base_ = './zoo_r101_ms-2x.py'

model = dict(
    backbone=dict(
        type='ResNeXt',
        groups=64,
        base_width=4,
        init_cfg=dict(checkpoint='open-mmlab://resnext101_64x4d'),
    ),
)
