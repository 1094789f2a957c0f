# Table 4, k = 5 candidates a level: 38.8 AP.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(train_cfg=dict(assigner=dict(topk=5)))
