# Table 2, assignment by IoU, regression from the point: 36.9 AP.
_base_ = '../table1/table1_retinanet_scalar.py'

model = dict(bbox_head=dict(regression='point'))
