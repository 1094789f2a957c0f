# Table 3, FCOS with all improvements: 37.8 AP.
# It is the FCOS of table 1.
_base_ = '../table1/table1_fcos.py'
