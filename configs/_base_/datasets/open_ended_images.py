# Images alone, for a model that is told no categories. What is in DATA_ROOT is found by itself.
test_pipeline = [
    dict(type='atss_ext.ReadUpright'),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'file_name',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'vlsam_error',
        ),
    ),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    # Each image in one process, also where their number does not divide: an image may take minutes.
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='atss_ext.ImageList',
        data_root='data/images/',
        data_prefix=dict(img=''),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='atss_ext.OpenEndedResults')
