# ATSS (arXiv 1912.02424), ResNet-50, 12 epochs: 39.3 AP on COCO minival in the paper.
# Architecture, losses, data and schedule are mmdet's; the head and the assigner are ours.
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'

model = dict(
    bbox_head=dict(type='atss_ext.ATSSHead'),
    train_cfg=dict(assigner=dict(type='atss_ext.ATSSAssigner')),
)
