# Table 8, ResNeXt-101-32x8d: 45.1 AP on test-dev.
_base_ = ['../zoo/zoo_x101-32x8d_ms-2x.py', '../_base_/coco_test-dev.py']

test_dataloader = dict(dataset=_base_.test_dev_dataset)
test_evaluator = dict(_base_.test_dev_evaluator, outfile_prefix='work_dirs/table8_x101-32x8d/test-dev')
