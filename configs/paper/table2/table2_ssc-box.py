# Table 2, assignment by spatial and scale constraint, regression from the box: 37.8 AP.
_base_ = '../table1/table1_fcos.py'

model = dict(bbox_head=dict(regression='box'))
