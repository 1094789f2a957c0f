# Table 3, RetinaNet with one anchor a location and all improvements: 37.0 AP.
# It is the last RetinaNet of table 1.
_base_ = '../table1/table1_retinanet_scalar.py'
