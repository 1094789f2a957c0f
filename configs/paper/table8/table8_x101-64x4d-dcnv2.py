# Table 8, ResNeXt-101-64x4d with deformable convolutions: 47.7 AP on test-dev.
_base_ = ['../zoo/zoo_x101-64x4d-dcnv2_ms-2x.py', '../_base_/coco_test-dev.py']

test_dataloader = dict(dataset=_base_.test_dev_dataset)
test_evaluator = dict(_base_.test_dev_evaluator, outfile_prefix='work_dirs/table8_x101-64x4d-dcnv2/test-dev')
