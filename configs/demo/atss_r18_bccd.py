# Real photographs on a CPU: ATSS with ResNet-18 from scratch on BCCD (blood cells), about ten minutes.
_base_ = [
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/bccd_detection.py',
    '../_base_/models/atss_r18_small.py',
    '../_base_/schedules/adamw_24e.py',
]

# Low scores cost nothing in AP, and a first epoch that finds nothing would leave no AP to compare.
model = dict(bbox_head=dict(num_classes=3), test_cfg=dict(score_thr=0.001))
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='coco/bbox_mAP', rule='greater'),
)
randomness = dict(seed=0)
