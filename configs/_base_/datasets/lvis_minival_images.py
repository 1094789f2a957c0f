# LVIS minival: 4,809 images of COCO's val2017.
_base_ = './open_ended_images.py'

test_dataloader = dict(
    dataset=dict(
        data_root='data/coco/',
        ann_file='annotations/lvis_v1_minival_inserted_image_name.json',
        data_prefix=dict(img='val2017/'),
    )
)
