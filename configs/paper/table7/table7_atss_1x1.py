# Table 7, improvements + ATSS, one anchor a location: 39.3 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=8, scales_per_octave=1, ratios=[1.0])))
