# ATSS as trained on COCO, tested on CODA: CORNER and NOVEL without names, COMMON by those COCO has.
_base_ = ['../atss/atss_r50_fpn_1x_coco.py', '../_base_/datasets/coda_detection.py']

test_dataloader = dict(dataset=_base_.coda_dataset)
test_evaluator = dict(_delete_=True, **_base_.coda_evaluator)
