# Table 4, k = 13 candidates a level: 39.0 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(train_cfg=dict(assigner=dict(topk=13)))
