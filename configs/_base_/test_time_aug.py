# Multi-scale testing of the official ATSS code, for tools/test.py --tta: 13 sizes, each also mirrored.
# The usual size keeps all it finds, the others boxes of the areas, measured at that size, that they see well.
tta_model = dict(
    type='atss_ext.ATSSTTA',
    area_ranges=[
        ((1333, 800), (0, float('inf'))),
        ((1333, 400), (96, 10000)),
        ((1333, 500), (96, 10000)),
        ((1333, 600), (64, 10000)),
        ((1333, 640), (64, 10000)),
        ((1333, 700), (64, 10000)),
        ((3000, 900), (0, 10000)),
        ((3000, 1000), (0, 10000)),
        ((3000, 1100), (0, 256)),
        ((3000, 1200), (0, 256)),
        ((3000, 1300), (0, 192)),
        ((3000, 1400), (0, 192)),
        ((3000, 1800), (0, 96)),
    ],
    merge='soft-vote',
    vote_iou=0.66,
    score_thr=0.05,
    max_per_img=1000,
)
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(1333, 800), keep_ratio=True),
                dict(type='Resize', scale=(1333, 400), keep_ratio=True),
                dict(type='Resize', scale=(1333, 500), keep_ratio=True),
                dict(type='Resize', scale=(1333, 600), keep_ratio=True),
                dict(type='Resize', scale=(1333, 640), keep_ratio=True),
                dict(type='Resize', scale=(1333, 700), keep_ratio=True),
                dict(type='Resize', scale=(3000, 900), keep_ratio=True),
                dict(type='Resize', scale=(3000, 1000), keep_ratio=True),
                dict(type='Resize', scale=(3000, 1100), keep_ratio=True),
                dict(type='Resize', scale=(3000, 1200), keep_ratio=True),
                dict(type='Resize', scale=(3000, 1300), keep_ratio=True),
                dict(type='Resize', scale=(3000, 1400), keep_ratio=True),
                dict(type='Resize', scale=(3000, 1800), keep_ratio=True),
            ],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackDetInputs',
                    meta_keys=(
                        'img_id',
                        'img_path',
                        'ori_shape',
                        'img_shape',
                        'scale',
                        'scale_factor',
                        'flip',
                        'flip_direction',
                    ),
                )
            ],
        ],
    ),
]
