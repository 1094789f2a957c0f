# CODA, the base benchmark (1,500 images), as what a detector trained on COCO is tested on instead of COCO:
# a config takes both and lets them replace what it inherits. Aliases: what CODA calls otherwise than COCO.
coda_dataset = dict(
    type='atss_ext.CodaDataset',
    mode='agnostic',
    data_root='data/coda/',
    ann_file='corner_case.json',
    data_prefix=dict(img='images/'),
)
coda_evaluator = dict(
    type='atss_ext.CodaMetric',
    ann_file='data/coda/corner_case.json',
    classes='mmdet.CocoDataset',
    aliases=dict(person='pedestrian', train='tram'),
)
