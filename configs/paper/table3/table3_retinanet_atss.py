# Table 3, RetinaNet + ATSS: 39.3 AP.
_base_ = './table3_retinanet.py'

model = dict(train_cfg=dict(assigner=dict(_delete_=True, type='atss_ext.ATSSAssigner', topk=9)))
