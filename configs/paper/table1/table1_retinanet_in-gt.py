# Table 1, + positives only inside their gt: 35.3 AP.
_base_ = './table1_retinanet_giou.py'

model = dict(train_cfg=dict(assigner=dict(center_inside=True)))
