# Table 8, ResNet-101: 43.6 AP on test-dev.
_base_ = ['../zoo/zoo_r101_ms-2x.py', '../_base_/coco_test-dev.py']

test_dataloader = dict(dataset=_base_.test_dev_dataset)
test_evaluator = dict(_base_.test_dev_evaluator, outfile_prefix='work_dirs/table8_r101/test-dev')
