# Table 3, FCOS + ATSS, which the paper calls the full version: 39.2 AP.
_base_ = './table3_fcos.py'

model = dict(train_cfg=dict(assigner=dict(_delete_=True, type='atss_ext.ATSSAssigner', topk=9)))
