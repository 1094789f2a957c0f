"""LVIS v1 as an mmdet dataset, without lvis-api."""

import json

import pytest

from atss_ext.datasets import LvisDataset
from atss_ext.datasets.checks import DataError
from atss_ext.registry import DATASETS

URL = 'http://images.cocodataset.org/'


@pytest.fixture
def file(tmp_path):
    images = [
        {'id': 7, 'width': 100, 'height': 80, 'coco_url': f'{URL}val2017/7.jpg',
         'neg_category_ids': [1], 'not_exhaustive_category_ids': [2]},
        {'id': 5, 'width': 100, 'height': 80, 'coco_url': f'{URL}train2017/5.jpg', 'file_name': 'COCO_5.jpg',
         'neg_category_ids': [], 'not_exhaustive_category_ids': []},
    ]  # fmt: skip
    annotations = [
        {'id': 1, 'image_id': 7, 'category_id': 2, 'bbox': [1, 2, 30, 40], 'area': 900.5,
         'segmentation': [[1, 2, 31, 2, 31, 42]]},
    ]  # fmt: skip
    names = ('axe', 'bag', 'cup')
    categories = [
        {'id': number, 'name': name, 'frequency': 'r'} for number, name in enumerate(names, start=1)
    ]
    path = tmp_path / 'lvis.json'
    path.write_text(json.dumps({'images': images, 'annotations': annotations, 'categories': categories}))
    return path


def build(file, classes=('axe', 'bag', 'cup')):
    return DATASETS.build({
        'type': 'atss_ext.LvisDataset', 'data_root': 'data/coco', 'ann_file': str(file),
        'data_prefix': {'img': ''}, 'metainfo': {'classes': classes}, 'test_mode': True,
        'serialize_data': False,
    })  # fmt: skip


def test_literal(file):
    dataset = build(file)
    first, second = dataset.get_data_info(0), dataset.get_data_info(1)
    assert (first['img_id'], first['img_path']) == (7, 'data/coco/val2017/7.jpg')
    assert (second['img_id'], second['img_path']) == (5, 'data/coco/train2017/5.jpg')
    assert first['instances'] == [
        {'bbox': [1, 2, 31, 42], 'bbox_label': 1, 'ignore_flag': 0, 'mask': [[1, 2, 31, 2, 31, 42]]}
    ]
    assert second['instances'] == []
    assert (first['neg_category_ids'], first['not_exhaustive_category_ids']) == ([1], [2])


def test_the_1203_classes_of_v1_are_its_own():
    names = LvisDataset.METAINFO['classes']
    assert (len(names), names[0], names[1202]) == (1203, 'aerosol_can', 'zucchini')


@pytest.mark.parametrize(
    ('classes', 'expected'),
    [
        (('axe', 'cup', 'bag'), 'has its categories in another order'),
        (('axe', 'bag', 'hat'), "has no category 'hat'"),
    ],
)
def test_other_categories_are_refused(file, classes, expected):
    with pytest.raises(DataError, match=expected):
        build(file, classes)
