# Table 4, k = 11 candidates a level: 39.1 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(train_cfg=dict(assigner=dict(topk=11)))
