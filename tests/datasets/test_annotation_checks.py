"""The checker on literal files: each fault alone is found, named, counted, and nothing else is."""

import copy
import os
import re
from pathlib import Path

import pytest
from small_annotations import RUNS, TRIANGLE, annotation, coco_file, coda_file, image, lvis_file

from atss_ext.datasets.annotation_checks import check_annotations, detect_kind, read_annotations
from atss_ext.datasets.annotation_checks.coda import CODA_CLASSES, CODA_COMMON
from atss_ext.datasets.annotation_checks.codes import CODES

NAN = float('nan')


@pytest.fixture
def coco():
    return coco_file()


@pytest.fixture
def lvis():
    return lvis_file()


@pytest.fixture
def coda():
    return coda_file()


def found(content, **options):
    """What a check finds: code -> (severity, count, examples)."""
    findings = check_annotations(content, **options).findings
    assert len({item.code for item in findings}) == len(findings)
    return {item.code: (item.severity, item.count, item.examples) for item in findings}


@pytest.mark.parametrize('kind', ['coco', 'lvis', 'coda'])
def test_a_sound_file_has_no_findings_and_is_told_by_its_content(kind, request):
    content = request.getfixturevalue(kind)
    assert detect_kind(content) == kind
    report = check_annotations(content)
    assert (report.kind, report.findings, report.errors) == (kind, (), 0)


def test_counts(coco):
    coco['images'].append(image(4))
    assert check_annotations(coco).counts == {
        'images': 4,
        'images without annotations': 1,
        'annotations': 4,
        'crowds': 1,
        'categories': 2,
    }


def put(*path_and_value):
    *path, last, value = path_and_value

    def damage(content):
        for key in path:
            content = content[key]
        content[last] = value

    return damage


def drop(*path):
    def damage(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        del content[last]

    return damage


def add(section, item):
    return lambda content: content[section].append(item)


def both(*damages):
    return lambda content: [damage(content) for damage in damages]


A = 'annotations'
BOX = (A, 1, 'bbox')
SEGMENT = (A, 1, 'segmentation')
CROWD = (A, 3, 'segmentation')
ERROR, WARNING = 'error', 'warning'
COCO_FAULTS = {
    'no box': (put(*BOX, None), {'box-form': (ERROR, 1, (12,))}),
    'three numbers': (put(*BOX, [1, 2, 3]), {'box-form': (ERROR, 1, (12,))}),
    'a text': (put(*BOX, [1, 2, 3, '4']), {'box-form': (ERROR, 1, (12,))}),
    'nan': (put(*BOX, [1, NAN, 3, 4]), {'box-finite': (ERROR, 1, (12,))}),
    'a number beyond floats': (put(*BOX, [1, 10**400, 3, 4]), {'box-finite': (ERROR, 1, (12,))}),
    'negative': (put(*BOX, [9, 9, -3, 4]), {'box-negative': (ERROR, 1, (12,))}),
    'empty': (put(*BOX, [9, 9, 0, 4]), {'box-empty': (WARNING, 1, (12,)), 'area-large': (WARNING, 1, (12,))}),
    'thin': (put(*BOX, [9, 9, 0.5, 399]), {'box-thin': (WARNING, 1, (12,)), 'box-over': (WARNING, 1, (12,))}),
    'outside': (put(*BOX, [100, 6, 20, 30]), {'box-outside': (ERROR, 1, (12,))}),
    'outside at the left': (put(*BOX, [-20, 6, 20, 30]), {'box-outside': (ERROR, 1, (12,))}),
    'over the left edge': (put(*BOX, [-1.5, 6, 20, 30]), {'box-over': (WARNING, 1, (12,))}),
    'a rounding over the edge': (put(*BOX, [80.01, 6, 20, 30]), {}),
    'area missing': (drop(A, 1, 'area'), {'area-missing': (ERROR, 1, (12,))}),
    'area true': (put(A, 1, 'area', True), {'area-missing': (ERROR, 1, (12,))}),
    'area infinite': (put(A, 1, 'area', float('inf')), {'area-finite': (ERROR, 1, (12,))}),
    'area negative': (put(A, 1, 'area', -1), {'area-negative': (ERROR, 1, (12,))}),
    'area zero': (put(A, 1, 'area', 0), {'area-zero': (WARNING, 1, (12,))}),
    'area larger than the box': (put(A, 1, 'area', 21 * 31 + 1), {'area-large': (WARNING, 1, (12,))}),
    'area of whole pixels': (put(A, 1, 'area', 21 * 31), {}),
    'box twice': (add(A, annotation(15, 1, 5, [0, 0, 10, 10], segmentation=[TRIANGLE])),
                  {'box-twice': (WARNING, 1, (15,))}),
    'unknown image': (put(A, 1, 'image_id', 9), {'unknown-image': (ERROR, 1, (12,))}),
    'image as a text': (put(A, 1, 'image_id', '1'), {'unknown-image': (ERROR, 1, (12,))}),
    'image as a list': (put(A, 1, 'image_id', [1]), {'unknown-image': (ERROR, 1, (12,))}),
    'unknown category': (put(A, 1, 'category_id', 9), {'unknown-category': (ERROR, 1, (12,))}),
    'category absent': (drop(A, 0, 'category_id'), {'unknown-category': (ERROR, 1, (11,))}),
    'image id a fraction': (put('images', 1, 'id', 2.0),
                            {'image-id': (ERROR, 1, ('number 1',)), 'unknown-image': (ERROR, 1, (13,))}),
    'category id a list': (put('categories', 0, 'id', [5]),
                           {'category-id': (ERROR, 1, ('number 0',)),
                            'category-unused': (WARNING, 1, ('number 0',)),
                            'unknown-category': (ERROR, 2, (11, 14))}),
    'an image id a text': (both(put('images', 1, 'id', '2'), put(A, 2, 'image_id', '2')),
                           {'image-id-mixed': (ERROR, 1, ('2',))}),
    'a category id a text': (both(put('categories', 1, 'id', '7'), put(A, 1, 'category_id', '7'),
                                  put(A, 2, 'category_id', '7')), {'category-id-mixed': (ERROR, 1, ('7',))}),
    'an annotation id a text': (put(A, 1, 'id', '12'), {}),
    'annotations null': (put(A, None), {'section': (ERROR, 1, (A,))}),
    'annotations an object': (put(A, {}), {'section': (ERROR, 1, (A,))}),
    'annotations a number': (put(A, 5), {'section': (ERROR, 1, (A,))}),
    'categories a number': (put('categories', 5), {'section': (ERROR, 1, ('categories',)),
                                                   'unknown-category': (ERROR, 4, (11, 12, 13, 14))}),
    'neither is a list': (both(put(A, True), put('categories', None)),
                          {'section': (ERROR, 2, (A, 'categories'))}),
    'no annotations at all': (drop(A), {'no-annotations': (WARNING, 1, ())}),
    'an empty list of annotations': (put(A, []), {}),
    'no images': (put('images', []),
                  {'no-image': (ERROR, 1, ()), 'unknown-image': (ERROR, 4, (11, 12, 13, 14))}),
    'a height of half pixels': (put('images', 2, 'height', 19.5), {'image-fraction': (ERROR, 1, (3,))}),
    'a height with a point': (put('images', 2, 'height', 20.0), {}),
    'annotation id twice': (put(A, 1, 'id', 11), {'annotation-id-twice': (ERROR, 1, (11,))}),
    'annotation without id': (drop(A, 1, 'id'), {'annotation-id': (ERROR, 1, ('number 1',))}),
    'image id twice': (add('images', image(3, 20, 20, file_name='x')), {'image-id-twice': (ERROR, 1, (3,))}),
    'category id twice': (add('categories', {'id': 7, 'name': 'cow'}),
                          {'category-id-twice': (ERROR, 1, (7,)), 'category-unused': (WARNING, 1, (7,))}),
    'category name twice': (put('categories', 1, 'name', 'cat'), {'category-name-twice': (ERROR, 1, (7,))}),
    'category without name': (put('categories', 1, 'name', ''), {'category-name': (ERROR, 1, (7,))}),
    'category unused': (add('categories', {'id': 9, 'name': 'cow'}), {'category-unused': (WARNING, 1, (9,))}),
    'file name twice': (put('images', 2, 'file_name', '1.jpg'), {'file-name-twice': (WARNING, 1, (3,))}),
    'no file name': (drop('images', 2, 'file_name'), {'file-name': (ERROR, 1, (3,))}),
    'no width': (drop('images', 1, 'width'), {'image-size': (ERROR, 1, (2,))}),
    'no height': (put('images', 1, 'height', 0), {'image-size': (ERROR, 1, (2,))}),
    'an image of no object': (add('images', 'x'), {'no-object': (ERROR, 1, ('number 3',))}),
    'crowd flag absent': (drop(A, 1, 'iscrowd'), {'crowd-missing': (ERROR, 1, (12,))}),
    'crowd flag two': (put(A, 1, 'iscrowd', 2), {'crowd-flag': (ERROR, 1, (12,))}),
    'crowd flag a text': (put(A, 1, 'iscrowd', '0'), {'crowd-flag': (ERROR, 1, (12,))}),
    'crowd of polygons': (put(A, 1, 'iscrowd', 1), {'crowd-polygon': (WARNING, 1, (12,))}),
    'odd polygon': (put(*SEGMENT, [[1, 2, 3, 4, 5, 6, 7]]), {'polygon-odd': (ERROR, 1, (12,))}),
    'short polygon': (put(*SEGMENT, [TRIANGLE, [1, 2, 3, 4]]), {'polygon-short': (ERROR, 1, (12,))}),
    'polygon of nan': (put(*SEGMENT, [[1, 2, 3, 4, 5, NAN]]), {'polygon-number': (ERROR, 1, (12,))}),
    'polygon of texts': (put(*SEGMENT, [[1, 2, 3, 4, 5, '6']]), {'polygon-number': (ERROR, 1, (12,))}),
    'polygon far out': (put(*SEGMENT, [[1, 2, 3, 4, 1001, 6]]), {'polygon-far': (ERROR, 1, (12,))}),
    'a long outline': (put(*SEGMENT, [[-900, 0, 900, 0] * 1200]), {'polygon-long': (ERROR, 1, (12,))}),
    'bare polygon': (put(*SEGMENT, TRIANGLE), {'segment-form': (ERROR, 1, (12,))}),
    'no counts': (put(*SEGMENT, {'size': [80, 100]}), {'segment-form': (ERROR, 1, (12,))}),
    'no segmentation': (put(*SEGMENT, []), {'segment-missing': (WARNING, 1, (12,))}),
    'size the other way round': (put(*SEGMENT, {'size': [100, 80], 'counts': [8000]}),
                                 {'rle-size': (ERROR, 1, (12,))}),
    'a pixel too few': (put(*CROWD, 'counts', [*RUNS[:-1], 295]), {'rle-counts': (ERROR, 1, (14,))}),
    'negative runs': (put(*CROWD, 'counts', [-1, 401]), {'rle-counts': (ERROR, 1, (14,))}),
    'broken text': (put(*CROWD, 'counts', 'Y~1'), {'rle-counts': (ERROR, 1, (14,))}),
}  # fmt: skip


@pytest.mark.parametrize('fault', COCO_FAULTS)
def test_each_fault_of_coco_alone(coco, fault):
    damage, expected = COCO_FAULTS[fault]
    damage(coco)
    assert found(coco) == expected


IMAGES = 'images'
LVIS_FAULTS = {
    'no list': (drop(IMAGES, 0, 'neg_category_ids'), {'lvis-negative-list': (ERROR, 1, (1,))}),
    'list of texts': (put(IMAGES, 0, 'neg_category_ids', ['1']), {'lvis-negative-list': (ERROR, 1, (1,))}),
    'no other list': (put(IMAGES, 1, 'not_exhaustive_category_ids', 3),
                      {'lvis-partial-list': (ERROR, 1, (2,))}),
    'unknown in it': (put(IMAGES, 1, 'not_exhaustive_category_ids', [9]),
                      {'lvis-partial-unknown': (ERROR, 1, (2,)), 'lvis-partial-unseen': (WARNING, 1, (2,))}),
    'unknown': (put(IMAGES, 0, 'neg_category_ids', [1, 99]), {'lvis-negative-unknown': (ERROR, 1, (1,))}),
    'present and absent': (put(IMAGES, 0, 'neg_category_ids', [1, 2]),
                           {'lvis-negative-seen': (ERROR, 1, (1,)), 'lvis-both': (ERROR, 1, (1,))}),
    'unseen': (put(IMAGES, 0, 'not_exhaustive_category_ids', [2, 3]),
               {'lvis-partial-unseen': (WARNING, 1, (1,))}),
    'frequency': (put('categories', 0, 'frequency', 'x'), {'lvis-frequency': (ERROR, 1, (1,))}),
    'count': (put('categories', 0, 'image_count', 11), {'lvis-count': (WARNING, 1, (1,))}),
    'only an address': (drop(IMAGES, 0, 'file_name'), {}),
}  # fmt: skip


@pytest.mark.parametrize('fault', LVIS_FAULTS)
def test_each_fault_of_lvis_alone(lvis, fault):
    damage, expected = LVIS_FAULTS[fault]
    damage(lvis)
    assert found(lvis) == expected


def test_counts_of_a_cut_out_file_are_not_held_against_its_frequencies(lvis):
    for category in lvis['categories']:
        category['image_count'] = 1  # of this file, not of the training set
    assert found(lvis) == {}


CODA_FAULTS = {
    'flag': (put(A, 0, 'corner_case', 'yes'), {'coda-flag': (ERROR, 1, (1,))}),
    'flag absent': (drop(A, 0, 'corner_case'), {'coda-flag-missing': (WARNING, 1, (1,))}),
    'period': (put(IMAGES, 0, 'period', 'noon'), {'coda-period': (WARNING, 1, (1,))}),
    'period absent': (drop(IMAGES, 0, 'period'), {'coda-period-missing': (WARNING, 1, (1,))}),
    'weather': (put(IMAGES, 1, 'weather', 5), {'coda-weather': (WARNING, 1, (2,))}),
    'weather absent': (drop(IMAGES, 1, 'weather'), {'coda-weather-missing': (WARNING, 1, (2,))}),
    'name': (put('categories', 1, 'name', 'hound'), {'coda-name': (WARNING, 1, (17,))}),
}


@pytest.mark.parametrize('fault', CODA_FAULTS)
def test_each_fault_of_coda_alone(coda, fault):
    damage, expected = CODA_FAULTS[fault]
    damage(coda)
    assert found(coda) == expected


def test_kind_by_content_and_by_order(coco, lvis, coda):
    for entry in coda[A]:
        del entry['corner_case']
    assert detect_kind(coda) == 'coco'  # two categories of CODA are no sign yet
    coda['categories'] = [{'id': i, 'name': name} for i, name in enumerate(CODA_CLASSES[:8])]
    assert detect_kind(coda) == 'coda'
    coda['categories'][0]['name'] = 'person'
    assert detect_kind(coda) == 'coco'
    assert set(found(coco, kind='lvis')) == {'lvis-negative-list', 'lvis-partial-list', 'lvis-frequency'}
    assert set(found(lvis, kind='coco')) == {'crowd-missing'}
    with pytest.raises(ValueError, match="kind must be 'coco', 'lvis' or 'coda', but is 'voc'"):
        check_annotations(coco, kind='voc')


def test_codas_categories_stand_at_their_ids():
    assert len(set(CODA_CLASSES)) == 43
    # Ids that published code lists for CODA2022's validation set.
    known = {
        1: 'pedestrian',
        7: 'bus',
        17: 'dog',
        24: 'traffic_cone',
        32: 'machinery',
        40: 'plastic_bag',
        43: 'misc',
    }
    assert {number: CODA_CLASSES[number - 1] for number in known} == known
    assert CODA_CLASSES[:7] == CODA_COMMON


def test_how_far_boxes_reach_over_is_said(coco):
    coco[A][0]['bbox'] = [91, 0, 10, 10]
    coco[A][1]['bbox'] = [5, 6, 20, 111.5]
    (finding,) = check_annotations(coco).findings
    assert 'by up to 37.5 pixels (1 of them by no more than one)' in finding.message


def test_at_most_five_examples_and_errors_first(coco):
    coco[A] += [annotation(100 + i, 1, 5, [i, 0, 0, 5], area=1, segmentation=[TRIANGLE]) for i in range(8)]
    coco[A][0]['image_id'] = 4
    findings = check_annotations(coco).findings
    assert [(item.code, item.count, item.examples) for item in findings] == [
        ('unknown-image', 1, (11,)),
        ('box-empty', 8, (100, 101, 102, 103, 104)),
    ]


def test_a_file_without_annotations_is_a_list_of_images(coco):
    (finding,) = check_annotations({'images': coco['images'], 'categories': coco['categories']}).findings
    assert (finding.code, finding.severity) == ('no-annotations', WARNING)
    assert 'as in the list of images of a test set' in finding.message
    assert set(found({'images': []})) == {'no-image', 'no-annotations'}
    assert set(found({'images': coco['images'], A: {'x': 1}})) == {'section'}


OF_FILES = {
    'file-missing',
    'file-unreadable',
    'file-size',
    'file-turned',
    'encoding',
}  # test_annotation_files.py


def test_every_code_can_be_found():
    cases = [*COCO_FAULTS.values(), *LVIS_FAULTS.values(), *CODA_FAULTS.values()]
    assert {code for _, expected in cases for code in expected} | OF_FILES == set(CODES)


def test_the_docs_list_every_code_and_how_bad_it_is():
    page = (Path(__file__).parents[2] / 'docs' / 'datasets.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| (`.*`) \| (error|warning) \| .+ \|$', page, flags=re.MULTILINE)
    listed = [(code, severity) for codes, severity in rows for code in re.findall(r'`([\w-]+)`', codes)]
    assert len(dict(listed)) == len(listed)
    assert dict(listed) == dict(CODES)


def test_a_check_changes_nothing(coco):
    before = copy.deepcopy(coco)
    check_annotations(coco)
    assert coco == before


@pytest.mark.slow
def test_real_files():
    """What is known of samples of LVIS, CODA and BCCD, counted by hand."""
    root = os.environ.get('ATSS_DATA_ROOT')
    if root is None:
        pytest.skip(
            'needs real annotations: set ATSS_DATA_ROOT to the folder that holds lvis/, coda/ and bccd/'
        )
    expected = {
        'lvis/lvis_val_100.json': ('lvis', {'category-unused': 1040}),
        'coda/instance_val_common_300.json': ('coda', {'box-over': 57, 'category-unused': 1}),
        'coda/instance_val_agnostic_corner_300.json': ('coda', {'box-over': 6}),
        'bccd/annotations/instances_train.json': ('coco', {}),
    }
    for name, (kind, counts) in expected.items():
        report = check_annotations(read_annotations(Path(root) / name))
        assert (report.kind, {item.code: item.count for item in report.findings}) == (kind, counts)
