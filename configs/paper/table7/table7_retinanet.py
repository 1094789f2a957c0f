# Table 7, RetinaNet with 3 scales x 3 ratios a location: 36.3 AP.
_base_ = '../table1/table1_retinanet.py'

model = dict(
    bbox_head=dict(anchor_generator=dict(octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0]))
)
