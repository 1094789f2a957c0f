# Table 1, + group normalisation in the head: 33.4 AP.
_base_ = './table1_retinanet.py'

model = dict(bbox_head=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=32, requires_grad=True)))
