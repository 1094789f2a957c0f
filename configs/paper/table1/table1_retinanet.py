# Table 1, RetinaNet with one square anchor of 8 strides a location: 32.5 AP.
_base_ = '../zoo/zoo_r50_1x.py'

max_iou = dict(type='atss_ext.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, low_quality_gt='best')
model = dict(
    bbox_head=dict(
        norm_cfg=None,
        centerness=False,
        scale_per_level=False,
        reg_decoded_bbox=False,
        # On deltas, a mean over their four numbers as in the RetinaNet the official code grew from.
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=0.11, loss_weight=0.25),
    ),
    train_cfg=dict(assigner=dict(_delete_=True, **max_iou)),
)
