"""VL-SAM's output as a training set: names, filters, masks and split against literal values."""

import itertools
import json
import math
import os
import resource
from functools import partial

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from atss_ext.datasets.annotation_checks import check_annotations
from atss_ext.datasets.checks import DataError
from atss_ext.pseudo_labels import (
    REASONS,
    FilterOptions,
    LabelOptions,
    check_folder,
    check_merge_map,
    class_name,
    dataset_settings,
    make_pseudo_labels,
    merge_names,
    read_found,
    read_merge_map,
    split_images,
    summary_lines,
    write_pseudo_labels,
)
from atss_ext.pseudo_labels.filters import above_quantile, best_of_overlapping
from atss_ext.vlsam import Detections
from atss_ext.vlsam.export import to_coco

SIZE = (40, 60)  # height, width


def detections(*objects) -> Detections:
    """Objects of an image: (name, score, x1, y1, x2, y2), each an ellipse in its box."""
    boxes, run_lengths = [], []
    for _, _, x1, y1, x2, y2 in objects:
        y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
        inside = ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2 <= 0.25
        run_lengths.append(rle.encode(np.asfortranarray(inside.astype(np.uint8))))
        boxes.append((x1, y1, x2, y2))
    return Detections(
        size=SIZE,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([one[1] for one in objects], np.float32),
        names=[one[0] for one in objects],
        run_lengths=run_lengths,
    )


SCENES = {
    '0.jpg': detections(('Dogs', 0.9, 2, 2, 20, 30), ('a red car', 0.5, 30, 5, 55, 20)),
    '1.jpg': detections(('dog', 0.8, 4, 4, 24, 28)),
    'sub/2.jpg': detections(('dog', 0.25, 1, 1, 11, 11), ('puppies', 0.7, 20, 10, 44, 36)),
    '3.jpg': detections(),
    '4.jpg': detections(('red cars', 0.6, 10, 10, 50, 30), ('red car', 0.4, 11, 10, 50, 30)),
}


@pytest.fixture
def found(tmp_path):
    return read_found(to_coco(SCENES.items(), tmp_path / 'annotations.json'))


def options(**changes) -> LabelOptions:
    filters = {name: changes.pop(name) for name in list(changes) if name in FilterOptions.__annotations__}
    return LabelOptions(**{'val_fraction': 0.0, 'filters': FilterOptions(**filters), **changes})


def kept(labels) -> set[tuple[str, str, float]]:
    """(image, class, score) of all that is kept."""
    rows = set()
    for part in labels.parts.values():
        images = {image['id']: image['file_name'] for image in part['images']}
        names = {category['id']: category['name'] for category in part['categories']}
        for row in part['annotations']:
            rows.add((images[row['image_id']], names[row['category_id']], round(row['score'], 3)))
    return rows


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('Dogs', 'dog'),
        ('the Traffic-Lights', 'traffic light'),
        ('traffic_light', 'traffic light'),
        ('wine glasses', 'wine glass'),
        ('glasses', 'glasses'),
        ('  two  blanks ', 'two blank'),
        ('bus', 'bus'),
        ('?!', ''),
    ],
)
def test_case_article_and_number_do_not_count(name, expected):
    assert class_name(name) == expected


def test_without_a_map_names_merge_by_words_alone():
    names = ['Dog', 'dogs', 'a dog', 'puppy', 'Red Cars', '...']
    assert merge_names(names) == {
        'Dog': 'dog', 'dogs': 'dog', 'a dog': 'dog', 'puppy': 'puppy', 'Red Cars': 'red car', '...': None,
    }  # fmt: skip


def test_a_map_merges_synonyms_and_others_stay_or_go():
    merge_map = {'Animal': ['dog', 'puppy'], 'vehicle': ['red car', 'van']}
    names = ['Dogs', 'puppies', 'animal', 'Vans', 'Trees']
    by_map = {'Dogs': 'Animal', 'puppies': 'Animal', 'animal': 'Animal', 'Vans': 'vehicle'}
    assert merge_names(names, merge_map) == {**by_map, 'Trees': 'tree'}
    assert merge_names(names, merge_map, others='drop') == {**by_map, 'Trees': None}


class Directions:
    """A text encoder of literal directions."""

    key = 'literal'
    KNOWN = {'animal': 0.0, 'vehicle': 90.0, 'hound': 20.0, 'tram': 80.0, 'cloud': 45.0}  # noqa: RUF012

    def encode(self, texts):
        angles = torch.tensor([math.radians(self.KNOWN[text]) for text in texts])
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_an_encoder_brings_the_rest_to_the_nearest_class():
    found = merge_names(
        ['hound', 'tram', 'cloud'], {'animal': [], 'vehicle': []}, encoder=Directions(), threshold=0.8
    )  # cosines 0.94, 0.98 and 0.71
    assert found == {'hound': 'animal', 'tram': 'vehicle', 'cloud': 'cloud'}


@pytest.mark.parametrize('suffix', ['yaml', 'json'])
def test_a_map_is_read_from_yaml_and_json(tmp_path, suffix):
    content = {'dog': ['puppy', 'hound'], 'car': [], 'no': ['yes'], 'cat': 'kitten'}
    path = tmp_path / f'map.{suffix}'
    if suffix == 'json':
        path.write_text(json.dumps(content, indent='\t'))
    else:
        path.write_text('dog: [puppy, hound]\ncar:\nno: [yes]\ncat: kitten\n')
    merge_map = read_merge_map(path)
    assert list(merge_map.items()) == [
        ('dog', ['puppy', 'hound']), ('car', []), ('no', ['yes']), ('cat', ['kitten']),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('dog: [puppy]\nDogs: [hound]\n', "the name 'Dogs' in two classes, 'dog' and 'Dogs'"),
        ('dog: [Puppy]\nbaby: [puppies]\n', "the name 'puppies' in two classes, 'dog' and 'baby'"),
        ('dog: [puppy]\ndog: [hound]\n', "the class 'dog' twice"),
        ('"!": [puppy]\n', "the class '!', which has no word"),
        ('- dog\n', "is no map 'class: [names]'"),
        ('', "is no map 'class: [names]'"),
        ('dog: {puppy: 1}\n', "has no list of names at the class 'dog'"),
        ('dog: [puppy\n', 'cannot be read'),
    ],
)
def test_a_bad_map_is_one_sentence(tmp_path, text, said):
    path = tmp_path / 'map.yml'
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_merge_map(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_map_given_in_python_is_checked_too():
    assert check_merge_map([('dog', ['Dogs', 'puppy'])]) == {'dog': ['Dogs', 'puppy']}
    with pytest.raises(DataError, match="the merge map has the name 'dogs' in two classes"):
        check_merge_map([('dog', []), ('cat', ['dogs'])])


def test_a_threshold_keeps_what_is_at_it(found):
    all_of_them = {
        ('0.jpg', 'dog', 0.9), ('0.jpg', 'red car', 0.5), ('1.jpg', 'dog', 0.8), ('sub/2.jpg', 'dog', 0.25),
        ('sub/2.jpg', 'puppy', 0.7), ('4.jpg', 'red car', 0.6), ('4.jpg', 'red car', 0.4),
    }  # fmt: skip
    assert kept(make_pseudo_labels(found, options(nms_iou=1.0))) == all_of_them
    exact = float(np.float32(0.7))
    at = kept(make_pseudo_labels(found, options(score_thr=exact)))
    assert at == {('0.jpg', 'dog', 0.9), ('1.jpg', 'dog', 0.8), ('sub/2.jpg', 'puppy', 0.7)}
    above = kept(make_pseudo_labels(found, options(score_thr=math.nextafter(exact, 1))))
    assert above == at - {('sub/2.jpg', 'puppy', 0.7)}


def test_the_least_area_is_of_the_mask_and_kept_at_it(found):
    small = min(found['annotations'], key=lambda row: row['area'])
    assert small['score'] == 0.25
    assert small['area'] == int(SCENES['sub/2.jpg'].mask(0).sum()) < 100  # the box has 100
    labels = make_pseudo_labels(found, options(min_area=small['area'], nms_iou=1.0))
    assert len(kept(labels)) == 7
    labels = make_pseudo_labels(found, options(min_area=small['area'] + 1, nms_iou=1.0))
    assert ('sub/2.jpg', 'dog', 0.25) not in kept(labels)
    assert labels.summary['boxes'] == {'found': 7, 'kept': 6, 'dropped': {REASONS[3]: 1}}


@pytest.mark.parametrize(
    ('quantile', 'expected'),
    [
        (0.0, [1, 1, 1, 1, 1, 1]),
        (0.24, [1, 1, 1, 1, 1, 1]),
        (0.25, [1, 1, 1, 0, 1, 1]),
        (0.5, [1, 0, 1, 0, 1, 1]),  # of two equal ones none goes without the other
        (0.75, [1, 0, 1, 0, 1, 1]),
        (0.9, [1, 0, 1, 0, 1, 1]),
    ],
)
def test_the_quantile_is_of_each_class(quantile, expected):
    scores = np.array([0.9, 0.5, 0.9, 0.2, 0.1, 0.1])
    classes = ['dog', 'dog', 'dog', 'dog', 'car', 'car']
    assert above_quantile(scores, classes, quantile).tolist() == [bool(one) for one in expected]


def test_a_quantile_counts_whole_boxes_in_spite_of_rounding():
    scores = np.arange(100) / 100
    assert int(above_quantile(scores, ['a'] * 100, 0.29).sum()) == 71  # 0.29 * 100 is 28.999999999999996


def test_of_overlapping_boxes_of_a_class_the_best_stays():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 5, 5]], float)
    scores = np.array([0.5, 0.9, 0.4, 0.3, 0.1])
    classes = ['a', 'a', 'b', 'a', 'a']
    images = np.array([0, 0, 0, 1, 0])
    # The IoU of the first two is 0.8.
    for iou, first in ((0.79, False), (0.8, True), (1.0, True)):
        found = best_of_overlapping(boxes, scores, classes, images, iou)
        assert found.tolist() == [first, True, True, True, True], iou
    twice = best_of_overlapping(boxes[[0, 0]], np.array([0.5, 0.6]), ['a', 'a'], np.array([3, 3]), 1.0)
    assert twice.tolist() == [False, True]


def test_merged_names_no_longer_overlap(found):
    labels = make_pseudo_labels(found, options())
    assert ('4.jpg', 'red car', 0.6) in kept(labels)
    assert ('4.jpg', 'red car', 0.4) not in kept(labels)
    assert labels.summary['boxes']['dropped'] == {REASONS[4]: 1}


def test_classes_of_too_few_boxes_go_after_all_other_filters(found):
    # Of three dogs one has 0.25, of three red cars one is overlapped.
    with pytest.raises(DataError, match='5 class of too few boxes'):
        make_pseudo_labels(found, options(min_count=3, score_thr=0.3))


def test_a_rare_class_goes(found):
    labels = make_pseudo_labels(found, options(min_count=3))
    assert kept(labels) == {('0.jpg', 'dog', 0.9), ('1.jpg', 'dog', 0.8), ('sub/2.jpg', 'dog', 0.25)}
    assert labels.summary['boxes']['dropped'] == {REASONS[4]: 1, REASONS[6]: 3}
    assert labels.parts['train']['categories'] == [{'id': 1, 'name': 'dog'}]


def test_masks_boxes_and_scores_are_the_source_s(found):
    merge_map = {'red car': [], 'dog': ['puppy']}
    labels = make_pseudo_labels(found, options(merge_map=merge_map, nms_iou=1.0))
    train = labels.parts['train']
    assert [category['name'] for category in train['categories']] == ['red car', 'dog']
    source = {row['id']: row for row in found['annotations']}
    assert len(train['annotations']) == 7
    for row in train['annotations']:
        changed = {key: value for key, value in row.items() if value != source[row['id']][key]}
        assert changed.keys() <= {'category_id'}
    images = {image['id']: image['file_name'] for image in train['images']}
    expected = {
        (file, float(score)): found_.mask(index)
        for file, found_ in SCENES.items()
        for index, score in enumerate(found_.scores)
    }
    for row in train['annotations']:
        mask = rle.decode({**row['segmentation'], 'counts': row['segmentation']['counts'].encode()})
        assert np.array_equal(mask, expected[images[row['image_id']], row['score']])


def test_an_annotation_is_written_whole(found):
    """Literally; of another tool's file, which says nothing of crowds, too."""
    row = next(row for row in found['annotations'] if row['name'] == 'puppies')
    bare = {key: value for key, value in row.items() if key != 'iscrowd'}
    for one in (row, bare, {**row, 'iscrowd': 1}):
        rows = [one if other is row else other for other in found['annotations']]
        train = make_pseudo_labels({**found, 'annotations': rows}, options(score_thr=0.65)).parts['train']
        (written,) = [one for one in train['annotations'] if one['name'] == 'puppies']
        assert written == {
            'id': 5, 'image_id': 3, 'category_id': 2, 'bbox': [20.0, 10.0, 24.0, 26.0],
            'area': int(SCENES['sub/2.jpg'].mask(1).sum()), 'iscrowd': 0, 'name': 'puppies',
            'score': float(np.float32(0.7)), 'segmentation': row['segmentation'],
        }  # fmt: skip
        assert train['categories'][1] == {'id': 2, 'name': 'puppy'}


def test_images_without_labels_go_or_stay(found):
    def names(**changes):
        part = make_pseudo_labels(found, options(**changes)).parts['train']
        return [image['file_name'] for image in part['images']]

    assert names() == ['0.jpg', '1.jpg', 'sub/2.jpg', '4.jpg']
    assert names(empty='keep') == ['0.jpg', '1.jpg', 'sub/2.jpg', '3.jpg', '4.jpg']
    assert names(score_thr=0.75) == ['0.jpg', '1.jpg']


def many(count: int) -> dict[str, Detections]:
    """Images that show dogs, cars or both; one of them a cat."""
    scenes = {}
    for number in range(count):
        objects = [('dog', 0.5, 2, 2, 20, 20)] if number % 3 else []
        objects += [('car', 0.6, 22, 2, 40, 20)] if number % 2 else []
        objects += [('cat', 0.7, 42, 2, 58, 20)] if number == 7 else []
        scenes[f'{number}.jpg'] = detections(*objects)
    return scenes


def test_the_split_shows_every_class_twice_and_has_no_finding(tmp_path):
    found = read_found(to_coco(many(40).items(), tmp_path / 'a.json'))
    labels = make_pseudo_labels(found, options(val_fraction=0.2, empty='keep'))
    sizes = {name: len(part['images']) for name, part in labels.parts.items()}
    assert sizes == {'train': 32, 'val': 8}
    files = [{image['file_name'] for image in part['images']} for part in labels.parts.values()]
    assert not files[0] & files[1]
    assert len(files[0] | files[1]) == 40
    for part in labels.parts.values():
        assert [category['name'] for category in part['categories']] == ['dog', 'car']
        assert check_annotations(part).findings == ()
    assert labels.summary['boxes']['dropped'] == {REASONS[6]: 1}  # the cat, of a single image


def test_the_split_follows_the_seed_alone():
    names = [f'{number}.jpg' for number in range(50)]
    labels = [frozenset({'a'})] * 50

    def chosen(order, seed):
        rows, failed = split_images([names[row] for row in order], labels, 0.2, seed)
        assert not failed
        return {names[order[row]] for row in rows}

    first = chosen(range(50), 0)
    assert len(first) == 10
    assert chosen(range(49, -1, -1), 0) == first
    assert chosen(range(50), 1) != first
    # The ten smallest of `printf 0/N.jpg | sha256sum`: a later release has the same split.
    numbers = {1, 2, 6, 10, 16, 35, 37, 39, 43, 49}
    assert first == {f'{number}.jpg' for number in numbers}


def test_images_change_sides_so_that_both_parts_show_each_class():
    names = [str(number) for number in range(30)]
    labels = [frozenset({'common', 'rare'} if number < 2 else {'common'}) for number in range(30)]
    for seed in range(20):
        rows, failed = split_images(names, labels, 0.1, seed)
        assert not failed
        assert len({0, 1} & set(rows)) == 1, seed
        assert len(rows) in (2, 3, 4)


def test_what_cannot_be_in_both_parts_is_said():
    # Each pair of images shares a class: whatever two parts there are, one class is in one alone.
    labels = [frozenset('xy'), frozenset('xz'), frozenset('yz')]
    for seed in range(5):
        rows, failed = split_images(['0', '1', '2'], labels, 0.4, seed)
        assert len(rows) == 1
        assert len(failed) == 1
    assert split_images(['0'], [frozenset('x')], 0.5, 0)[1] == {'x'}
    assert split_images(['0', '1'], [frozenset('x')] * 2, 0.0, 0) == ([], set())


def damaged(found, **changes):
    return {**found, 'annotations': [{**found['annotations'][0], **changes}, *found['annotations'][1:]]}


def test_what_mmdet_would_drop_without_a_word_goes(found):
    """A box over the edge is cut; thin ones, and those without area, without or beside their mask go."""
    rows = [dict(row) for row in found['annotations']]
    rows[0]['bbox'] = [-3.0, 2.0, 23.0, 28.0]
    rows[1]['bbox'] = [30.0, 5.0, 0.5, 15.0]
    rows[2]['area'] = 0
    rows[3].pop('segmentation')
    rows[4]['bbox'] = [20.0, 10.0, 4.0, 4.0]  # its mask has 24 x 26 pixels
    labels = make_pseudo_labels({**found, 'annotations': rows}, options(nms_iou=1.0))
    train = labels.parts['train']
    assert [row['id'] for row in train['annotations']] == [rows[0]['id'], rows[5]['id'], rows[6]['id']]
    assert train['annotations'][0]['bbox'] == [0.0, 2.0, 20.0, 28.0]
    assert labels.summary['boxes']['dropped'] == {REASONS[0]: 4}
    assert check_annotations(train).findings == ()


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'image_id': 99}, "the annotation's image_id is not among 'images', as at 1"),
        ({'category_id': 99}, "the annotation's category_id is not among 'categories', as at 1"),
        ({'score': None}, 'annotation 1 of'),
        ({'score': float('nan')}, 'has the score nan'),
        ({'bbox': [1, 2, -3, 4]}, 'negative width'),
        ({'segmentation': {'size': [1, 1], 'counts': '1'}}, "run lengths' size"),
    ],
)
def test_damaged_annotations_are_one_sentence(tmp_path, found, change, said):
    path = tmp_path / 'damaged.json'
    path.write_text(json.dumps(damaged(found, **change)))
    with pytest.raises(DataError) as caught:
        read_found(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_files_that_are_none_are_one_sentence(tmp_path, found):
    path = tmp_path / 'f.json'
    cut = json.dumps(found)[:-40]
    for text, said in (
        (cut, 'is no valid JSON'),
        ('[]', "has no list 'images'"),
        ('{"images": []}', 'faults'),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            read_found(path)
    to_coco([('3.jpg', detections())], path)
    with pytest.raises(DataError, match='has no box: VL-SAM found nothing'):
        read_found(path)
    with pytest.raises(DataError, match='does not exist'):
        read_found(tmp_path / 'missing.json')


def test_categories_that_differ_in_case_are_one_class(tmp_path):
    scenes = {
        '0.jpg': detections(('Dog', 0.9, 2, 2, 20, 30)),
        '1.jpg': detections(('dog', 0.5, 2, 2, 20, 30)),
    }
    found = read_found(to_coco(scenes.items(), tmp_path / 'a.json'))
    assert [one['name'] for one in found['categories']] == ['Dog', 'dog']
    labels = make_pseudo_labels(found, options())
    assert labels.parts['train']['categories'] == [{'id': 1, 'name': 'dog'}]
    assert labels.summary['classes'] == {'dog': {'boxes': 2, 'names': {'Dog': 1, 'dog': 1}}}


def test_two_images_of_one_name_and_nothing_left_are_refused(found):
    twice = {**found, 'images': [{**image, 'file_name': 'a.jpg'} for image in found['images']]}
    with pytest.raises(DataError, match=r'5 images have the file name a\.jpg'):
        make_pseudo_labels(twice, options())
    with pytest.raises(DataError, match=r'none of the 7 boxes is left \(7 confidence below the threshold\)'):
        make_pseudo_labels(found, options(score_thr=1.0))


@pytest.mark.parametrize(
    ('kind', 'values', 'said'),
    [
        (FilterOptions, {'score_thr': 1.1}, 'score_thr must be from 0 to 1, but is 1.1'),
        (FilterOptions, {'class_quantile': 1.0}, 'class_quantile must be from 0 to below 1, but is 1.0'),
        (FilterOptions, {'min_area': float('nan')}, 'min_area must be 0 or more, but is nan'),
        (FilterOptions, {'nms_iou': -0.1}, 'nms_iou must be from 0 to 1, but is -0.1'),
        (FilterOptions, {'min_count': 0}, 'min_count must be at least 1, but is 0'),
        (LabelOptions, {'val_fraction': 1.0}, 'val_fraction must be from 0 to below 1, but is 1.0'),
        (LabelOptions, {'empty': 'some'}, "empty must be 'drop' or 'keep', but is 'some'"),
        (LabelOptions, {'others': 'drop'}, 'need a merge map'),
        (LabelOptions, {'encoder_threshold': 2.0}, 'encoder_threshold must be from -1 to 1, but is 2.0'),
    ],
)
def test_values_out_of_range_are_refused(kind, values, said):
    with pytest.raises(ValueError) as caught:
        kind(**values)
    assert said in str(caught.value)


def test_a_map_s_classes_stay_in_its_order_and_without_a_box_if_asked(found):
    merge_map = {'tree': [], 'red car': [], 'dog': []}

    def names(**changes):
        labels = make_pseudo_labels(found, options(merge_map=merge_map, **changes))
        return [one['name'] for one in labels.parts['train']['categories']]

    assert names() == ['red car', 'dog', 'puppy']
    assert names(others='drop') == ['red car', 'dog']
    assert names(all_classes=True, others='drop') == ['tree', 'red car', 'dog']


def test_a_set_on_disk_tells_a_config_its_classes(tmp_path, found):
    labels = make_pseudo_labels(found, options(val_fraction=0.3))
    assert set(labels.parts) == {'train', 'val'}
    folder = write_pseudo_labels(labels, tmp_path / 'set', tmp_path / 'pictures')
    classes, images = dataset_settings(folder)
    train = json.loads((folder / 'train.json').read_text())
    assert list(classes) == [one['name'] for one in train['categories']]
    assert images == f'{(tmp_path / "pictures").resolve()}/'
    assert train == labels.parts['train']
    # One without a part to validate on takes its place, whole.
    write_pseudo_labels(make_pseudo_labels(found, options()), folder, tmp_path / 'pictures')
    assert sorted(path.name for path in folder.iterdir()) == ['summary.json', 'train.json']
    assert dataset_settings(tmp_path / 'none', ['a']) == (('a',), f'{tmp_path / "none"}/images/')
    (folder / 'summary.json').write_text('{"classes"')
    with pytest.raises(DataError, match=r'damaged; remove train\.json, val\.json, summary\.json, and make'):
        dataset_settings(folder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize('name', ['train.json', 'val.json', 'summary.json'])
def test_files_of_another_origin_stay(tmp_path, found, name):
    """Annotations made by hand, as docs/own_data.md calls them, alone and among a set of ours."""
    labels = make_pseudo_labels(found, options(val_fraction=0.3))
    by_hand = {**labels.parts['train'], 'info': {'labels': 'by hand'}}
    for text in (json.dumps(by_hand), json.dumps(labels.parts['train']), '{"a": 1}', '[]', 'no JSON'):
        folder = tmp_path / 'alone'
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        before = contents(folder)
        for refuse in (partial(write_pseudo_labels, labels, images=tmp_path), check_folder):
            with pytest.raises(DataError) as caught:
                refuse(folder=folder)
            assert str(caught.value) == (
                f'{folder / name} was not written by tools/pseudo_label.py and would be lost; choose another '
                '--out'
            )
        assert contents(folder) == before
    ours = write_pseudo_labels(labels, tmp_path / 'ours', tmp_path)
    check_folder(ours)
    (ours / name).write_text(json.dumps(by_hand))
    before = contents(ours)
    with pytest.raises(DataError, match='would be lost; choose another --out'):
        write_pseudo_labels(labels, ours, tmp_path)
    assert contents(ours) == before


@pytest.mark.parametrize('step', range(5))
def test_a_set_that_was_interrupted_is_said_and_made_again(tmp_path, found, monkeypatch, step):
    """Each step in which a file takes its place or goes may be the last."""
    first, second = (make_pseudo_labels(found, options(val_fraction=0.3, score_thr=s)) for s in (0, 0.45))
    folder = write_pseudo_labels(first, tmp_path / 'set', tmp_path)
    old = contents(folder)
    new = contents(write_pseudo_labels(second, tmp_path / 'other', tmp_path))
    steps = iter(range(9))

    def interrupted(act):
        def until(*args, **kwargs):
            if next(steps) == step:
                raise KeyboardInterrupt
            return act(*args, **kwargs)

        return until

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', interrupted(os.replace))
        patch.setattr(type(folder), 'unlink', interrupted(type(folder).unlink))
        with pytest.raises(KeyboardInterrupt):
            write_pseudo_labels(second, folder, tmp_path)
    for part in folder.glob('.*'):  # what is killed cannot clear up
        part.unlink()
    if step == 0:
        assert contents(folder) == old
    else:
        with pytest.raises(DataError, match='was not written to its end; run tools/pseudo_label'):
            dataset_settings(folder)
    write_pseudo_labels(second, folder, tmp_path)
    assert contents(folder) == new


def test_a_full_disk_leaves_the_set_that_was_there(tmp_path, found):
    """The system lets no file grow to the size of the largest, whose last bytes are missing."""
    labels = make_pseudo_labels(found, options(val_fraction=0.3))
    folder = write_pseudo_labels(labels, tmp_path / 'set', tmp_path)
    before = contents(folder)
    assert sorted(before) == ['summary.json', 'train.json', 'val.json']
    other = make_pseudo_labels(found, options(val_fraction=0.3, score_thr=0.3))
    sizes = [len(text) for text in contents(write_pseudo_labels(other, tmp_path / 'b', tmp_path)).values()]
    limit = max(sizes) - 1
    assert limit < 8192  # what a file object may hold back until it is closed
    before_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before_limit[1]))
    try:
        with pytest.raises(OSError, match='File too large'):
            write_pseudo_labels(other, folder, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before_limit)
    assert contents(folder) == before


def test_the_summary_in_words(found):
    labels = make_pseudo_labels(found, options(merge_map={'dog': ['puppy']}, score_thr=0.3))
    assert summary_lines(labels.summary) == [
        'images   5: 4 with labels, 1 without; 4 to train on, 0 to validate on',
        'boxes    7: 5 kept, 2 left out',
        '       1  confidence below the threshold',
        '       1  overlaps a better box of its class',
        'classes  2',
        '       3  dog      Dogs, dog, puppies',
        '       2  red car  a red car, red cars',
    ]


def test_kept_and_dropped_boxes_add_up(found):
    for score, area, count in itertools.product((0.0, 0.45), (0.0, 150.0), (1, 2)):
        summary = make_pseudo_labels(found, options(score_thr=score, min_area=area, min_count=count)).summary
        boxes = summary['boxes']
        assert boxes['kept'] + sum(boxes['dropped'].values()) == boxes['found'] == 7
        assert sum(one['boxes'] for one in summary['classes'].values()) == boxes['kept']
