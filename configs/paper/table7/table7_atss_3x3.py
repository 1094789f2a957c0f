# Table 7, improvements + ATSS, 3 scales x 3 ratios: 39.2 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(
    bbox_head=dict(anchor_generator=dict(octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0]))
)
