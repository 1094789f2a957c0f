# Table 4, k = 3 candidates a level: 38.0 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(train_cfg=dict(assigner=dict(topk=3)))
