# ATSS, ResNet-101 with deformable convolutions, 12 epochs: official config without published weights or AP.
_base_ = './zoo_r50-dcnv2_1x.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')),
)
