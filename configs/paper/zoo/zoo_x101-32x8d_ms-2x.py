# ATSS, ResNeXt-101-32x8d, 24 epochs at 640 to 800 pixels: 44.8 AP on minival.
_base_ = './zoo_r101_ms-2x.py'

model = dict(
    # These weights come from Caffe2, which saw blue first; mean and deviation are in its order.
    data_preprocessor=dict(mean=[103.530, 116.280, 123.675], std=[57.375, 57.120, 58.395], bgr_to_rgb=False),
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=8,
        norm_cfg=dict(requires_grad=False),
        init_cfg=dict(checkpoint='open-mmlab://detectron2/resnext101_32x8d'),
    ),
)
