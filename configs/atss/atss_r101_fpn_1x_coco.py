# ATSS with ResNet-101, 12 epochs; the official repository has this config without published weights.
_base_ = './atss_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')),
)
