# Table 5, square anchors of 8 strides: 39.3 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=8)))
