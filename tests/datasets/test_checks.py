"""The checks of COCO files, on literal files and against mmdet's own reading of them."""

import copy
import json

import pytest

from atss_ext.datasets import checks
from atss_ext.datasets.checks import CocoSummary, DataError, check_coco, check_images, nearest, read_coco

FILE = 'train.json'
CLASSES = ('cat', 'dog')


def _image(number: int, width: int = 100, height: int = 80) -> dict:
    return {'id': number, 'file_name': f'{number}.jpg', 'width': width, 'height': height}


def _annotation(number: int, image: int, category: int, box: list, **more: object) -> dict:
    area = box[2] * box[3]
    return {'id': number, 'image_id': image, 'category_id': category, 'bbox': box, 'area': area, **more}


@pytest.fixture
def coco() -> dict:
    return {
        'images': [_image(1), _image(2), _image(3, 20, 20)],
        'annotations': [
            _annotation(11, 1, 5, [0, 0, 10, 10]),
            _annotation(12, 1, 7, [5.5, 6.5, 20, 30]),
            _annotation(13, 2, 9, [1, 1, 5, 5]),
            _annotation(14, 3, 5, [2, 2, 4, 4]),
        ],
        'categories': [{'id': 5, 'name': 'cat'}, {'id': 7, 'name': 'dog'}, {'id': 9, 'name': 'cow'}],
    }


def test_a_sound_file_is_counted(coco):
    assert check_coco(coco, FILE) == CocoSummary(images=3, boxes=4)
    assert check_coco(coco, FILE, classes=CLASSES) == CocoSummary(images=3, boxes=3)
    filtered = {'filter_empty_gt': True, 'min_size': 32}
    # Image 2 has only a cow, image 3 is 20 pixels small.
    assert check_coco(coco, FILE, classes=CLASSES, filter_cfg=filtered) == CocoSummary(images=1, boxes=2)


def _set(path, value):
    def damage(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        content[last] = value

    return damage


def _drop(*path):
    def damage(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        del content[last]

    return damage


BOX = ('annotations', 1, 'bbox')
NAN = float('nan')
FAULTS = {
    'nan': (
        _set(BOX, [NAN, 1, 2, 3]),
        ['annotation 12 of train.json', 'not finite: [nan, 1, 2, 3]', 'remove it'],
    ),
    'infinite': (_set(BOX, [0, 1, float('inf'), 3]), ['annotation 12 of train.json', '[0, 1, inf, 3]']),
    'inverted width': (
        _set(BOX, [9, 1, -2, 3]),
        ['annotation 12 of train.json', 'inverted', '[9, 1, -2, 3]'],
    ),
    'inverted height': (
        _set(BOX, [9, 1, 2, -3]),
        ['annotation 12 of train.json', 'inverted', '[9, 1, 2, -3]'],
    ),
    'three numbers': (_set(BOX, [9, 1, 2]), ['annotation 12 of train.json', '[9, 1, 2]', 'four numbers']),
    'text in a box': (_set(BOX, [9, 1, 2, 'x']), ['annotation 12 of train.json', "'x'", 'four numbers']),
    'digits in quotes in a box': (
        _set(BOX, [9, 1, 2, '3']),
        ['annotation 12 of train.json', "'3'", 'four numbers'],
    ),
    'annotations are none': (_set(('annotations',), None), ["'annotations' of train.json is None", 'a list']),
    'categories are a number': (_set(('categories',), 7), ["'categories' of train.json is 7", 'a list']),
    'area in quotes': (
        _set(('annotations', 1, 'area'), 'x'),
        ['annotation 12', "'x' for 'area'", 'a number'],
    ),
    'width in quotes': (_set(('images', 1, 'width'), '10'), ['image 2', "'10' for 'width'", 'a number']),
    'a category id that is an object': (
        _set(('annotations', 1, 'category_id'), {'a': 1}),
        ['annotation 12', "{'a': 1} for 'category_id'", 'a number or a text'],
    ),
    'an id that is a list': (
        _set(('categories', 1, 'id'), [1]),
        ["category [1] of train.json has [1] for 'id'"],
    ),
    'a name that is none': (
        _set(('categories', 1, 'name'), None),
        ['category 7', "None for 'name'", 'a text'],
    ),
    'a file name that is a number': (_set(('images', 1, 'file_name'), 2), ['image 2', "2 for 'file_name'"]),
    'no box': (_set(BOX, None), ['annotation 12 of train.json', 'None', 'four numbers']),
    'three and five': (
        lambda c: (_set(BOX, [1, 1, 2])(c), _set(('annotations', 0, 'bbox'), [1, 1, 2, 2, 2])(c)),
        ['annotation 11 of train.json', '[1, 1, 2, 2, 2]'],
    ),
    'unknown image': (_set(('annotations', 1, 'image_id'), 77), ['annotation 12', 'image id 77', "'images'"]),
    'unknown category': (_set(('annotations', 1, 'category_id'), 77), ['annotation 12', 'category id 77']),
    'no area': (_drop('annotations', 1, 'area'), ['annotation 12', "no 'area'", 'width * height']),
    'no bbox': (_drop('annotations', 1, 'bbox'), ['annotation 12', "no 'bbox'"]),
    'no width': (_drop('images', 1, 'width'), ['image 2', "no 'width'"]),
    'annotation id twice': (_set(('annotations', 1, 'id'), 11), ['annotation id 11 stands 2 times']),
    'image id twice': (_set(('images', 1, 'id'), 1), ['image id 1 stands 2 times']),
    'a name twice': (_set(('categories', 2, 'name'), 'cat'), ['two categories', "'cat'"]),
    'no image': (lambda c: c.update(images=[], annotations=[]), ['train.json lists no image']),
    'not an object': (_set(('annotations', 1), 'x'), ['annotation number 1', "'x'"]),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_each_fault_is_named(coco, fault):
    damage, parts = FAULTS[fault]
    damage(coco)
    with pytest.raises(DataError) as caught:
        check_coco(coco, FILE, classes=CLASSES)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert '\n' not in message


def test_several_alike_are_counted_and_the_first_is_named(coco):
    for annotation in coco['annotations'][1:]:
        annotation['bbox'][2] = -1
    with pytest.raises(DataError, match=r'annotation 12 .* \(3 annotations are like it\)'):
        check_coco(coco, FILE)


@pytest.mark.parametrize(
    'change',
    [
        {'iscrowd': 1, 'bbox': [0, 0, -3, 4]},
        {'ignore': 1, 'bbox': [0, 0, -3, 4]},
        {'category_id': 9, 'bbox': [NAN, 0, 3, 4]},
    ],
)
def test_what_the_dataset_does_not_use_is_no_fault(coco, change):
    """Crowd, ignored, or of a class that the config does not want."""
    coco['annotations'][1].update(change)
    assert check_coco(coco, FILE, classes=CLASSES).boxes == 2


@pytest.mark.parametrize(
    ('box', 'area'), [([5, 5, 10, 0.5], 5), ([5, 5, 0, 0], 0), ([5, 5, 4, 4], 0), ([100, 5, 4, 4], 16)]
)
def test_what_the_dataset_drops_is_noted(coco, box, area):
    """Thinner than a pixel, of no area, outside: COCO's own files hold such boxes, so they are no fault."""
    coco['annotations'][1].update(bbox=box, area=area)
    summary = check_coco(coco, FILE, classes=CLASSES)
    assert summary.boxes == 2
    assert len(summary.notes) == 1
    assert 'first: annotation 12' in summary.notes[0]
    assert '1 of 3 boxes of train.json' in summary.notes[0]


def test_classes_that_are_not_in_the_file(coco):
    with pytest.raises(DataError) as caught:
        check_coco(coco, FILE, classes=('cat', 'dogs'))
    assert "class 'dogs'" in str(caught.value)
    assert "did you mean 'dog'?" in str(caught.value)
    assert "'cat', 'dog', 'cow'" in str(caught.value)
    with pytest.raises(DataError, match=r"2 of the config's 3 classes \(first 'car'\)"):
        check_coco(coco, FILE, classes=('cat', 'car', 'bus'))
    with pytest.raises(DataError, match=r"with a single class write \('cat', \)"):
        check_coco(coco, FILE, classes='cat')


def test_at_most_ten_names_are_listed(coco):
    coco['categories'] += [{'id': 100 + index, 'name': f'n{index}'} for index in range(20)]
    with pytest.raises(DataError) as caught:
        check_coco(coco, FILE, classes=('zebra',))
    assert "'n6' and 13 more" in str(caught.value)
    assert 'n7' not in str(caught.value)


def test_another_order_of_the_classes_is_noted(coco):
    """mmdet numbers labels by the file, so names would be exchanged."""
    assert check_coco(coco, FILE, classes=('cat', 'dog')).notes == ()
    (note,) = check_coco(coco, FILE, classes=('dog', 'cat')).notes
    assert "list them as 'cat', 'dog'" in note


def test_nothing_left_to_train_on_says_why(coco):
    with pytest.raises(DataError) as caught:
        check_coco(coco, FILE, classes=('cow',), filter_cfg={'filter_empty_gt': True, 'min_size': 90})
    assert 'none of the 3 images of train.json is left to train on: 3 are smaller than min_size=90' in str(
        caught.value
    )
    coco['annotations'] = []
    with pytest.raises(DataError, match='the others have no annotation of the wanted classes'):
        check_coco(coco, FILE, filter_cfg={'filter_empty_gt': True})
    # Without the filter mmdet keeps the images; whether a training set has no box is the caller's.
    assert check_coco(coco, FILE) == CocoSummary(images=3, boxes=0)


def test_reading(tmp_path, coco):
    path = tmp_path / FILE
    with pytest.raises(DataError, match=r'annotation file .*train.json does not exist'):
        read_coco(path)
    path.write_text(json.dumps(coco)[:100])
    with pytest.raises(DataError, match='no valid JSON'):
        read_coco(path)
    path.write_text('[1, 2]')
    with pytest.raises(DataError, match="no list 'images'"):
        read_coco(path)
    path.write_text(json.dumps(coco))
    assert read_coco(path) == coco


def test_reading_a_large_file_is_said(tmp_path, coco, monkeypatch, capsys):
    path = tmp_path / FILE
    path.write_text(json.dumps(coco))
    size = path.stat().st_size
    for limit, said in ((size + 1, ''), (size, f'reading annotation file {path}, 0 MB ...\n')):
        monkeypatch.setattr(checks, 'LARGE_FILE', limit)
        read_coco(path)
        assert capsys.readouterr().err == said
    monkeypatch.setenv('RANK', '1')
    read_coco(path)
    assert capsys.readouterr().err == ''


def test_images(tmp_path):
    with pytest.raises(DataError, match=r'image folder .*nowhere does not exist'):
        check_images(['a.jpg'], tmp_path / 'nowhere', FILE)
    (tmp_path / 'sub').mkdir()
    for name in ('a.jpg', 'sub/b.jpg'):
        (tmp_path / name).touch()
    check_images(['a.jpg', 'sub/b.jpg'], tmp_path, FILE)
    with pytest.raises(DataError, match=r'an image of train.json is missing, first .*sub/c.jpg'):
        check_images(['a.jpg', 'sub/c.jpg'], tmp_path, FILE)
    with pytest.raises(DataError, match=r'2 images of train.json are missing, first .*b.jpg'):
        check_images(['b.jpg', 'none/a.jpg'], tmp_path, FILE)


def test_nearest():
    assert nearest('ATSSHed', ['FCOSHead', 'ATSSHead']) == " (did you mean 'ATSSHead'?)"
    assert nearest('xyz', ['FCOSHead', 'ATSSHead']) == ''


def test_the_summary_is_what_mmdet_keeps(tmp_path, coco):
    """Images and boxes as counted by mmdet's CocoDataset itself, on a file with every kind of oddity."""
    from mmdet.datasets import CocoDataset

    import atss_ext  # noqa: F401

    odd = [
        _annotation(21, 1, 5, [90, 70, 30, 30]),  # reaches out of the image: kept
        _annotation(22, 1, 5, [120, 70, 30, 30]),  # outside
        _annotation(23, 2, 5, [3, 3, 0.9, 5]),  # too thin
        _annotation(24, 2, 7, [3, 3, 9, 9], iscrowd=1),
        _annotation(25, 2, 7, [3, 3, 9, 9], ignore=1),
        _annotation(26, 2, 7, [-5, -5, 9, 9]),  # begins outside: kept
        _annotation(27, 2, 7, [-9, -9, 9, 9]),  # only touches
        {**_annotation(28, 1, 7, [3, 3, 9, 9]), 'area': 0},
    ]
    coco['annotations'] += odd
    (tmp_path / FILE).write_text(json.dumps(coco))
    for filter_cfg in (
        None,
        {'filter_empty_gt': True, 'min_size': 32},
        {'filter_empty_gt': False, 'min_size': 32},
    ):
        dataset = CocoDataset(
            ann_file=str(tmp_path / FILE),
            metainfo={'classes': CLASSES},
            filter_cfg=filter_cfg,
            data_prefix={'img': ''},
        )
        boxes = [box for index in range(len(dataset)) for box in dataset.get_data_info(index)['instances']]
        summary = check_coco(copy.deepcopy(coco), FILE, classes=CLASSES, filter_cfg=filter_cfg)
        assert summary.images == len(dataset)
        assert summary.boxes == sum(not box['ignore_flag'] for box in boxes)
