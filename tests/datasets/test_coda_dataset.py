"""CODA as an mmdet dataset, on literal files and against mmdet's own reading."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image

from atss_ext.datasets import CODA_BASE_COMMON, CODA_CLASSES, CODA_COMMON, CodaDataset
from atss_ext.datasets.checks import DataError
from atss_ext.registry import DATASETS

# Ids and order of the base benchmark are not those of CODA2022, and 'tram' and 'bus' are absent here.
CATEGORIES = [(9, 'dog'), (2, 'tricycle'), (1, 'pedestrian'), (4, 'car'), (5, 'misc')]
# id, image, category, box, corner case (None: not said)
ANNOTATIONS = [
    (1, 10, 4, [0, 0, 20, 10], None),
    (2, 10, 9, [30, 30, 5, 6], None),
    (3, 20, 2, [1, 1, 9, 9], True),
    (4, 20, 9, [5, 5, 8, 8], False),
    (5, 20, 4, [50, 50, 0, 8], True),  # without width: mmdet drops it
    (6, 30, 4, [5, 5, 8, 8], False),
]
TAGS = {10: {'period': 'day', 'weather': 'rainy'}, 20: {'period': 'night'}, 30: {}}


@pytest.fixture
def folder(tmp_path):
    images = [
        {'id': number, 'file_name': f'0{number}.jpg', 'width': 100, 'height': 80, **tags}
        for number, tags in TAGS.items()
    ]
    annotations = [
        {
            **{
                'id': number,
                'image_id': image,
                'category_id': category,
                'bbox': box,
                'area': box[2] * box[3],
            },
            **({} if corner is None else {'corner_case': corner}),
            'iscrowd': False,
        }
        for number, image, category, box, corner in ANNOTATIONS
    ]
    categories = [{'id': number, 'name': name, 'supercategory': 'x'} for number, name in CATEGORIES]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    for name in ('annotations.json', 'corner_case.json'):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / 'images').mkdir()
    for image in images:
        Image.new('RGB', (100, 80), (9, 99, 200)).save(tmp_path / 'images' / image['file_name'])
    return tmp_path


def build(folder, file='annotations.json', **options):
    # Without the collection of garbage that mmengine's serialising starts with: seconds in a large process.
    options = {'test_mode': True, 'serialize_data': False, **options}
    return DATASETS.build(
        {'type': 'atss_ext.CodaDataset', 'data_root': str(folder), 'ann_file': file, **options}
    )


def labels(dataset):
    """Image id -> labels."""
    entries = (dataset.get_data_info(index) for index in range(len(dataset)))
    return {entry['img_id']: [thing['bbox_label'] for thing in entry['instances']] for entry in entries}


def corners(dataset):
    return [dataset.get_data_info(index)['corner_cases'] for index in range(len(dataset))]


def test_labels_follow_the_classes_not_the_file(folder):
    car, dog, tricycle = (CODA_CLASSES.index(name) for name in ('car', 'dog', 'tricycle'))
    assert (car, tricycle, dog) == (2, 5, 16)
    dataset = build(folder)
    assert dataset.metainfo['classes'] == CODA_CLASSES
    assert labels(dataset) == {10: [car, dog], 20: [tricycle, dog], 30: [car]}
    # What mmdet makes of the file, and why that is no use: the third class of the file is not CODA's third.
    options = {'data_root': str(folder), 'ann_file': 'annotations.json', 'data_prefix': {'img': 'images/'}}
    theirs = CocoDataset(**options, metainfo={'classes': CODA_CLASSES}, test_mode=True)
    assert labels(theirs)[10] == [3, 0]


def test_modes(folder):
    assert labels(build(folder, mode='common')) == {10: [2], 20: [5], 30: [2]}
    assert build(folder, mode='common').metainfo['classes'] == CODA_COMMON
    five = build(folder, mode='common', metainfo={'classes': CODA_BASE_COMMON})
    assert labels(five) == {10: [2], 20: [4], 30: [2]}
    agnostic = build(folder, mode='agnostic')
    assert agnostic.metainfo['classes'] == ('object',)
    assert labels(agnostic) == {10: [0, 0], 20: [0, 0], 30: [0]}
    assert labels(build(folder, mode='novel')) == {10: [0], 20: [0], 30: []}


def test_novel_in_the_base_benchmark_is_all_but_its_five(folder):
    content = json.loads((folder / 'annotations.json').read_text())
    content['categories'][0]['name'] = 'bus'  # was the dog
    for name in ('annotations.json', 'corner_case.json'):
        (folder / name).write_text(json.dumps(content))
    assert labels(build(folder, mode='novel', layout='base')) == {10: [0], 20: [0], 30: []}
    assert labels(build(folder, 'corner_case.json', mode='novel')) == {10: [0], 20: [0], 30: []}
    assert labels(build(folder, mode='novel')) == {10: [], 20: [], 30: []}


def test_a_missing_corner_case_by_layout(folder):
    """A novel class is one by definition; of common classes only the base benchmark's are sure."""
    assert corners(build(folder)) == [[False, True], [True, False], [False]]
    assert corners(build(folder, layout='base')) == [[True, True], [True, False], [False]]
    assert corners(build(folder, 'corner_case.json')) == [[True, True], [True, False], [False]]
    assert corners(build(folder, 'corner_case.json', layout='2022')) == [
        [False, True],
        [True, False],
        [False],
    ]


def test_corner_cases_alone(folder):
    assert labels(build(folder, mode='agnostic', corner_only=True)) == {10: [0], 20: [0], 30: []}
    # Training leaves out images that have nothing left.
    keep = {'filter_cfg': {'filter_empty_gt': True}, 'test_mode': False, 'mode': 'agnostic'}
    assert set(labels(build(folder, corner_only=True, **keep))) == {10, 20}
    assert set(labels(build(folder, **keep))) == {10, 20, 30}


def test_boxes_are_mmdets(folder):
    options = {'data_root': str(folder), 'ann_file': 'annotations.json', 'data_prefix': {'img': 'images/'}}
    names = [name for _, name in CATEGORIES]
    theirs = CocoDataset(**options, metainfo={'classes': names}, test_mode=True)
    ours = build(folder, metainfo={'classes': names})
    for index in range(3):
        own, their = ours.get_data_info(index), theirs.get_data_info(index)
        assert own['img_path'] == their['img_path'] == str(folder / 'images' / f'0{index + 1}0.jpg')
        own['instances'] = [{k: v for k, v in i.items() if k != 'corner_case'} for i in own['instances']]
        assert {key: own[key] for key in their} == their
    assert ours.cat_ids == theirs.cat_ids


def test_tags_reach_the_sample(folder):
    keys = ('img_id', 'period', 'weather', 'file_name', 'corner_cases')
    pipeline = [
        {'type': 'mmdet.LoadImageFromFile'},
        {'type': 'mmdet.LoadAnnotations', 'with_bbox': True},
        {'type': 'mmdet.PackDetInputs', 'meta_keys': keys},
    ]
    dataset = build(folder, pipeline=pipeline, serialize_data=True)
    found = [{key: dataset[index]['data_samples'].metainfo[key] for key in keys} for index in range(3)]
    assert found == [
        dict(zip(keys, (10, 'day', 'rainy', '010.jpg', [False, True]), strict=True)),
        dict(zip(keys, (20, 'night', None, '020.jpg', [True, False]), strict=True)),
        dict(zip(keys, (30, None, None, '030.jpg', [False]), strict=True)),
    ]
    boxes = dataset[0]['data_samples'].gt_instances.bboxes.tensor.tolist()
    assert boxes == [[0, 0, 20, 10], [30, 30, 35, 36]]
    np.testing.assert_array_equal(dataset[0]['inputs'].shape, [3, 80, 100])


def test_what_cannot_be_used(folder):
    with pytest.raises(ValueError, match="mode must be one of all, common, novel, agnostic, but is 'rare'"):
        CodaDataset(mode='rare')
    with pytest.raises(ValueError, match="layout must be 'base', '2022' or None, but is '2023'"):
        CodaDataset(layout='2023')
    content = json.loads((folder / 'annotations.json').read_text())
    content['annotations'][0]['image_id'] = 11
    (folder / 'lost.json').write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r'annotation 1 of .*lost\.json names image 11, .*check_annotations\.py'
    ):
        build(folder, 'lost.json')
    content['categories'] = [{'id': 1, 'name': 'corner_case_object'}]
    (folder / 'agnostic.json').write_text(json.dumps({**content, 'annotations': []}))
    for mode in ('all', 'common'):
        with pytest.raises(
            DataError, match=r"none of the classes of mode='\w+', but corner_case_object; .*agnostic"
        ):
            build(folder, 'agnostic.json', mode=mode)
    assert len(build(folder, 'agnostic.json', mode='agnostic')) == 3


@pytest.mark.parametrize('flag', ['false', '0', 2, []])
def test_corner_cases_are_flags(folder, flag):
    content = json.loads((folder / 'annotations.json').read_text())
    content['annotations'][3]['corner_case'] = flag
    (folder / 'annotations.json').write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        build(folder)
    assert f"annotation 4 of {folder}/annotations.json has {flag!r} for 'corner_case', which" in str(
        error.value
    )


@pytest.mark.slow
def test_the_real_sample():
    """The official evaluation files of 300 images; their licence keeps them out of the repository."""
    root = os.environ.get('ATSS_DATA_ROOT')
    if root is None:
        pytest.skip('needs CODA: set ATSS_DATA_ROOT to the folder that holds coda/')
    folder = Path(root) / 'coda'
    common = build(folder, 'instance_val_common_300.json', mode='common')
    assert sum(map(len, corners(common))) == 2986
    assert sum(map(sum, corners(common))) == 179
    corner = build(folder, 'instance_val_agnostic_corner_300.json', mode='agnostic', corner_only=True)
    assert sum(map(len, corners(corner))) == 1601
