# Table 8, ResNeXt-101-64x4d with deformable convolutions, 13 sizes and mirrored: 50.7 AP on test-dev (--tta).
_base_ = ['./table8_x101-64x4d-dcnv2.py', '../../_base_/test_time_aug.py']

test_evaluator = dict(outfile_prefix='work_dirs/table8_x101-64x4d-dcnv2_ms-test/test-dev')
