# Table 5, square anchors of 9 strides: 38.9 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=9)))
