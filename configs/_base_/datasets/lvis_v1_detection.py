# LVIS v1 as what a detector trains on and is tested on instead of COCO: a config takes both and lets these
# replace what it inherits. Images lie in COCO's folders, at the path in coco_url.
lvis_root = 'data/lvis_v1/'

lvis_train_dataset = dict(
    # Images of categories that fewer than one image in a thousand has come more often (Gupta et al. 2019).
    type='ClassBalancedDataset',
    oversample_thr=1e-3,
    dataset=dict(
        type='atss_ext.LvisDataset',
        data_root=lvis_root,
        ann_file='annotations/lvis_v1_train.json',
        data_prefix=dict(img=''),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
    ),
)
lvis_val_dataset = dict(
    type='atss_ext.LvisDataset',
    data_root=lvis_root,
    ann_file='annotations/lvis_v1_val.json',
    data_prefix=dict(img=''),
)
lvis_evaluator = dict(
    type='atss_ext.LvisMetric', ann_file=lvis_root + 'annotations/lvis_v1_val.json', metric='bbox'
)
