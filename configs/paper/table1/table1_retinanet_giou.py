# Table 1, + GIoU loss on boxes: 34.9 AP.
_base_ = './table1_retinanet_gn.py'

model = dict(
    bbox_head=dict(reg_decoded_bbox=True, loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=2.0))
)
