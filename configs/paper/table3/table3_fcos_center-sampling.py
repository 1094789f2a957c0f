# Table 3, FCOS + center sampling, which the paper calls the lite version of ATSS: 38.6 AP.
_base_ = './table3_fcos.py'

model = dict(train_cfg=dict(assigner=dict(center_sampling_radius=1.5)))
