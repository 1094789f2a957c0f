# Table 1, FCOS: 37.8 AP. What is left between it and RetinaNet is regression and assignment.
_base_ = '../zoo/zoo_r50_1x.py'

model = dict(
    bbox_head=dict(regression='point'),
    train_cfg=dict(assigner=dict(_delete_=True, type='atss_ext.SpatialScaleAssigner')),
)
