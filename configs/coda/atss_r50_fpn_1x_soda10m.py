# ATSS trained on SODA10M, whose six classes are common ones of CODA; tested on CODA's base benchmark.
_base_ = [
    '../atss/atss_r50_fpn_1x_coco.py',
    '../_base_/datasets/soda10m_detection.py',
    '../_base_/datasets/coda_detection.py',
]

model = dict(bbox_head=dict(num_classes=6))

train_dataloader = dict(dataset=_base_.soda10m_train_dataset)
val_dataloader = dict(dataset=_base_.soda10m_val_dataset)
val_evaluator = _base_.soda10m_evaluator

test_dataloader = dict(dataset=_base_.coda_dataset)
test_evaluator = dict(
    _delete_=True,
    **dict(_base_.coda_evaluator, classes=_base_.soda10m_classes, aliases=_base_.soda10m_aliases),
)
