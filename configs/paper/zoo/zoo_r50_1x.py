# ATSS, ResNet-50, 12 epochs: 39.3 AP on minival. What every other config of the paper stands on.
_base_ = '../../atss/atss_r50_fpn_1x_coco.py'

# The paper's figures were made by ranking boxes by class score x centerness, and scoring by its root.
model = dict(test_cfg=dict(inference='official'))
