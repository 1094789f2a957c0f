# Table 2, assignment by IoU, regression from the box: 37.0 AP.
_base_ = '../table1/table1_retinanet_scalar.py'

model = dict(bbox_head=dict(regression='box'))
