# ATSS, ResNeXt-101-64x4d with deformable convolutions, tested on minival at 13 sizes and mirrored (--tta).
# It is trained by its base; the paper has the figure of test-dev alone (table 8).
_base_ = ['./zoo_x101-64x4d-dcnv2_ms-2x.py', '../../_base_/test_time_aug.py']
