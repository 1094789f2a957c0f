# Table 6, aspect ratio 1:1 (height to width) at 8 strides: 39.3 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(bbox_head=dict(anchor_generator=dict(ratios=[1.0])))
