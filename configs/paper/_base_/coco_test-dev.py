# COCO's test-dev, whose annotations are not public: results are written for its server instead of scored.
test_dev_dataset = dict(
    ann_file='annotations/image_info_test-dev2017.json', data_prefix=dict(img='test2017/')
)
test_dev_evaluator = dict(format_only=True, ann_file='data/coco/annotations/image_info_test-dev2017.json')
