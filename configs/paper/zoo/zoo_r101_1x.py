# ATSS, ResNet-101, 12 epochs: a config of the official repository without published weights or AP.
_base_ = './zoo_r50_1x.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')),
)
