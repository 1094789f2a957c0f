# ATSS with ResNet-101 on LVIS v1, 12 epochs.
_base_ = './atss_r50_fpn_sample1e-3_1x_lvis-v1.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')),
)
