# LVIS minival: 4,809 images of COCO's val2017. The model sees images alone; its names are brought to the
# file's categories by the metric, and scored by fixed AP.
_base_ = './open_ended_images.py'

test_dataloader = dict(
    dataset=dict(
        data_root='data/coco/',
        ann_file='annotations/lvis_v1_minival_inserted_image_name.json',
        data_prefix=dict(img='val2017/'),
    )
)
test_evaluator = dict(
    _delete_=True,
    type='atss_ext.NamedMetric',
    metric=dict(
        type='atss_ext.LvisMetric',
        ann_file='data/coco/annotations/lvis_v1_minival_inserted_image_name.json',
        metric=['bbox', 'segm'],
        protocol='fixed',
    ),
    mapper=dict(encoder=dict(type='atss_ext.ClipEncoder')),
)
