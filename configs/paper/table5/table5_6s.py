# Table 5, square anchors of 6 strides: 39.2 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=6)))
