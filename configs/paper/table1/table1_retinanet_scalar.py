# Table 1, + a learned scale a level: 37.0 AP.
_base_ = './table1_retinanet_centerness.py'

model = dict(bbox_head=dict(scale_per_level=True))
