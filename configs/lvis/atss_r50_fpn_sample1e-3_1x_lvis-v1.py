# ATSS on LVIS v1: 1,203 classes, repeat-factor sampling, 12 epochs, 300 detections an image.
_base_ = ['../atss/atss_r50_fpn_1x_coco.py', '../_base_/datasets/lvis_v1_detection.py']

model = dict(
    bbox_head=dict(num_classes=1203),
    # LVIS counts 300 detections an image, and what is rare scores low.
    test_cfg=dict(score_thr=1e-4, max_per_img=300),
)

lvis_train_dataset = _base_.lvis_train_dataset
lvis_train_dataset['dataset']['pipeline'] = _base_.train_pipeline
train_dataloader = dict(dataset=dict(_delete_=True, **lvis_train_dataset))
val_dataloader = dict(dataset=_base_.lvis_val_dataset)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, **_base_.lvis_evaluator)
test_evaluator = val_evaluator
