# Table 7, improvements + ATSS, 3 scales x 1 ratio: 39.3 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=4, scales_per_octave=3, ratios=[1.0])))
