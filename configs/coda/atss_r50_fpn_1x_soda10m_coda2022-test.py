# ATSS trained on SODA10M, tested on CODA2022's test set: AP-common by names, the rest class-agnostic.
_base_ = './atss_r50_fpn_1x_soda10m.py'

coda2022_root = 'data/coda2022/test/'
test_dataloader = dict(dataset=dict(data_root=coda2022_root, ann_file='annotations.json', layout='2022'))
test_evaluator = dict(ann_file=coda2022_root + 'annotations.json', layout='2022')
