# Tests atss_r50_fpn_sample1e-3_1x_lvis-v1.py by fixed AP (arXiv 2102.01066): the 10,000 best of a category
# over all images and no limit an image. So the model has none that is reached after NMS, and before it, on a
# level, as many as a category has in all.
_base_ = './atss_r50_fpn_sample1e-3_1x_lvis-v1.py'

model = dict(test_cfg=dict(nms_pre=10_000, score_thr=0.0, max_per_img=100_000))
test_evaluator = dict(protocol='fixed')
