# BCCD: 364 photographs of blood cells in COCO format, 3 classes.
# ATSS_DATA_ROOT is the folder that holds bccd/; data/ where it is not set.
_base_ = './small_coco.py'

data_root = '{{$ATSS_DATA_ROOT:data}}/bccd/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
image_scale = (320, 240)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

train_dataloader = dict(
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        train_dataloader['dataset'], ann_file='annotations/instances_val.json', pipeline=test_pipeline
    )
)
test_dataloader = dict(
    dataset=dict(val_dataloader['dataset'], ann_file='annotations/instances_test.json'),
)
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_test.json')
