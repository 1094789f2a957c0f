# Table 1, + centerness: 36.8 AP.
_base_ = './table1_retinanet_in-gt.py'

model = dict(bbox_head=dict(centerness=True))
