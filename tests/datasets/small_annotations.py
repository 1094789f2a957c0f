"""Small sound files of COCO, LVIS and CODA, for tests to damage."""


def image(number, width=100, height=80, **more):
    return {'id': number, 'file_name': f'{number}.jpg', 'width': width, 'height': height, **more}


def annotation(number, image_id, category_id, box, **more):
    area = box[2] * box[3]
    own = {'id': number, 'image_id': image_id, 'category_id': category_id, 'bbox': box, 'area': area}
    return {**own, 'iscrowd': 0, **more}


TRIANGLE = [5, 6, 25, 6, 5, 36]
# 4 x 3 pixels of an image of 20 x 20: columns 2..5, rows 1..3, as run lengths down the columns.
RUNS = [41, 3, 17, 3, 17, 3, 17, 3, 296]


def coco_file() -> dict:
    return {
        'images': [image(1), image(2), image(3, 20, 20)],
        'annotations': [
            annotation(11, 1, 5, [0, 0, 10, 10], segmentation=[[0, 0, 10, 0, 10, 10, 0, 10]]),
            annotation(12, 1, 7, [5, 6, 20, 30], segmentation=[TRIANGLE]),
            annotation(13, 2, 7, [90, 70, 10, 10], segmentation=[[90, 70, 100, 70, 100, 80]]),
            annotation(
                14, 3, 5, [2, 1, 4, 3], iscrowd=1, segmentation={'size': [20, 20], 'counts': list(RUNS)}
            ),
        ],
        'categories': [{'id': 5, 'name': 'cat'}, {'id': 7, 'name': 'dog'}],
    }


def lvis_file() -> dict:
    kinds = (('axe', 'r', 3), ('bag', 'c', 40), ('cup', 'f', 500))
    categories = [
        {'id': number, 'name': name, 'frequency': frequency, 'image_count': count}
        for number, (name, frequency, count) in enumerate(kinds, start=1)
    ]
    lists = ([1], [2]), ([], []), ([3], [])
    images = [
        {
            **image(number),
            'coco_url': f'http://images.cocodataset.org/val2017/{number}.jpg',
            'neg_category_ids': negative,
            'not_exhaustive_category_ids': partial,
        }
        for number, (negative, partial) in enumerate(lists, start=1)
    ]
    boxes = [(1, 1, 2), (2, 2, 3), (3, 3, 1)]
    annotations = [annotation(number, i, c, [1, 2, 3, 4]) for number, i, c in boxes]
    for entry in annotations:
        del entry['iscrowd']
    return {'images': images, 'annotations': annotations, 'categories': categories}


def coda_file() -> dict:
    tags = (('day', 'sunny'), ('Night', 'Rainy'))
    images = [image(i, period=p, weather=w) for i, (p, w) in enumerate(tags, start=1)]
    categories = [{'id': i, 'name': name, 'supercategory': 'x'} for i, name in ((3, 'car'), (17, 'dog'))]
    annotations = [
        annotation(1, 1, 3, [1, 2, 3, 4], corner_case=False, iscrowd=False),
        annotation(2, 2, 17, [1, 2, 3, 4], corner_case=True, iscrowd=False),
    ]
    return {'images': images, 'annotations': annotations, 'categories': categories}
