"""Damaged annotations, result files and samples: a sentence from every scorer, never a figure or a crash."""

import copy
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from atss_ext.datasets.checks import DataError, read_coco
from atss_ext.evaluation.coco import AgnosticRecall, CocoMetric, coco_figures
from atss_ext.evaluation.coco.result_file import check_results, found_of, read_results
from atss_ext.evaluation.coco.table import truth_of
from atss_ext.evaluation.coda import CodaMetric
from atss_ext.evaluation.errors import read_truth
from atss_ext.evaluation.lvis import LvisMetric, LvisTruth, from_coco, lvis_figures

POLYGON = [[10, 10, 30, 10, 30, 30, 10, 30]]
RUNS = {'size': [100, 100], 'counts': [1010, *[20, 80] * 19, 20, 7070]}  # the same mask
NAN = float('nan')
DROP = object()


def annotation_file():
    return {
        'images': [
            {'id': n, 'file_name': '', 'height': 100, 'width': 100, 'neg_category_ids': [],
             'not_exhaustive_category_ids': []} for n in (1, 2)
        ],
        'annotations': [
            {'id': 10 + n, 'image_id': n, 'category_id': n, 'bbox': [10, 10, 20, 20], 'area': 400,
             'iscrowd': 0, 'segmentation': POLYGON} for n in (1, 2)
        ],
        'categories': [{'id': n, 'name': name, 'frequency': 'r'} for n, name in ((1, 'axe'), (2, 'bag'))],
    }  # fmt: skip


def changed(content, *path):
    """A copy with another value, the last of the path, in it; or without it."""
    content = copy.deepcopy(content)
    *parents, last, value = path
    place = content
    for key in parents:
        place = place[key]
    if value is DROP:
        del place[last]
    else:
        place[last] = value
    return content


def plain(content):
    """Without LVIS's lists: a COCO file."""
    return {**content, 'images': [
        {key: one[key] for key in one if not key.endswith('_ids')} if isinstance(one, dict) else one
        for one in content['images']
    ]}  # fmt: skip


READERS = {
    'coco': lambda content: truth_of(plain(content), 'ann.json'),
    'lvis': lambda content: LvisTruth(content, 'ann.json', masks=False),
    'errors': lambda content: read_truth(plain(content), 'ann.json'),
    'errors of lvis': lambda content: read_truth(content, 'ann.json'),
}

A, FIRST, C = (('annotations', 0), ('images', 0), ('categories', 0))
FAULTS = {
    'no image_id': ((*A, 'image_id', DROP), 'annotation 11 of ann.json has the image_id None, which must be'),
    'no category_id': ((*A, 'category_id', DROP), 'annotation 11 of ann.json has the category_id None'),
    'a list as id': ((*A, 'image_id', [1]), r'has the image_id \[1\]'),
    'a float as id': ((*A, 'category_id', 1.0), r'has the category_id 1\.0, which must be a whole number or'),
    'a float as own id': ((*FIRST, 'id', 1.0), r'number 0 .* has the id 1\.0, which must be a whole number'),
    'true as id': ((*A, 'image_id', True), 'has the image_id True'),
    'another image': ((*A, 'image_id', 99), 'annotation 11 .* is of image 99 and category 1, one of which'),
    'another category': ((*A, 'category_id', 99), 'is of image 1 and category 99, one of which'),
    'no object': ((*A, 3), 'annotation number 0 of ann.json is 3; COCO format has an object there'),
    'no annotations': (('annotations', DROP), "ann.json has no list 'annotations'"),
    'image no object': ((*FIRST, 3), 'image number 0 of ann.json is 3'),
    'image without id': ((*FIRST, 'id', DROP), 'image number 0 of ann.json has the id None'),
    'mixed ids': ((*FIRST, 'id', 'x'), "has the image ids 2 and 'x', a number and a text"),
    'image twice': (('images', 1, 'id', 1), 'image id 1 stands twice in ann.json'),
    'category without id': ((*C, 'id', DROP), 'category number 0 of ann.json has the id None'),
    'category without name': ((*C, 'name', DROP), 'category 1 of ann.json has the name None'),
    'category twice': (('categories', 1, 'id', 1), 'category id 1 stands twice'),
    'categories no list': (('categories', {}), r"'categories' of ann.json is \{\}, which must be a list"),
    'no box': ((*A, 'bbox', DROP), 'annotation 11 of ann.json has the box None, which must be'),
    'a text as box': ((*A, 'bbox', 'abcd'), "has the box 'abcd', which must be"),
    'a number as box': ((*A, 'bbox', 5), 'has the box 5, which must be'),
    'three numbers': ((*A, 'bbox', [1, 2, 3]), r'has the box \[1, 2, 3\], which must be'),
    'a null in the box': ((*A, 'bbox', [1, 2, None, 4]), r'has the box \[1, 2, None, 4\], which must be'),
    'a box beyond floats': ((*A, 'bbox', [1, 2, 10**400, 4]), r'has the box \[1, 2, 1000'),
    'a negative box': ((*A, 'bbox', [9, 9, -2, 4]), r'has the box \[9.0, 9.0, -2.0, 4.0\], of negative size'),
    'null area': ((*A, 'area', None), 'annotation 11 of ann.json has the area None, which must be a finite'),
    'nan area': ((*A, 'area', NAN), 'has the area nan, which must be a finite'),
    'a text as area': ((*A, 'area', 'x'), "has the area 'x', which must be a finite"),
    'negative area': ((*A, 'area', -4), 'has the area -4, which must be a finite number, not below 0'),
}  # fmt: skip


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('name', FAULTS)
def test_every_reader_names_a_damaged_annotation(name, reader):
    path, sentence = FAULTS[name]
    with pytest.raises(DataError, match=sentence):
        READERS[reader](changed(annotation_file(), *path))


@pytest.mark.parametrize('reader', READERS)
def test_the_sound_file_is_read(reader):
    READERS[reader](annotation_file())


@pytest.mark.parametrize(
    ('reader', 'key'),
    [('coco', 'iscrowd'), ('errors', 'iscrowd'), ('lvis', 'ignore'), ('errors of lvis', 'ignore')],
)
def test_flags_are_0_or_1(reader, key):
    with pytest.raises(
        DataError, match=rf"annotation 11 of ann.json has '0' for '{key}', which must be 0 or 1"
    ):
        READERS[reader](changed(annotation_file(), *A, key, '0'))
    for flag in (True, None, 1.0):
        READERS[reader](changed(annotation_file(), *A, key, flag))


def test_without_an_area_coco_takes_the_boxs_and_lvis_refuses():
    content = changed(annotation_file(), *A, 'area', DROP)
    assert READERS['coco'](content).areas.tolist() == [400, 400]
    assert READERS['errors'](content).areas.tolist() == [400, 400]
    for reader in ('lvis', 'errors of lvis'):
        with pytest.raises(DataError, match=r'annotation 11 of ann.json has the area None'):
            READERS[reader](content)


@pytest.mark.parametrize('reader', ['lvis', 'errors of lvis'])
@pytest.mark.parametrize('key', ['neg_category_ids', 'not_exhaustive_category_ids'])
@pytest.mark.parametrize(('odd', 'shown'), [([[1]], r'\[\[1\]\]'), ([{}], r'\[\{\}\]'), ([1.0], r'\[1\.0\]')])
def test_lists_of_lvis_hold_ids(reader, key, odd, shown):
    with pytest.raises(DataError, match=rf"image 1 of ann.json has {shown} for '{key}', which must be ids"):
        READERS[reader](changed(annotation_file(), *FIRST, key, odd))


MASKS = {
    'huge polygon': ([[1e12, 0, 1e12, 1e12, 0, 0]], 'has a polygon with 1000000000000.0, but its image'),
    'polygon of nan': ([[NAN] * 6], 'has a polygon with nan, which is no finite number'),
    'polygon of texts': ([['a'] * 6], "has a polygon with 'a'"),
    'box as polygon': ([[1, 2, 3, 4]], r'has the polygon \[1, 2, 3, 4\], which is less than three points'),
    'beyond the image': ({'size': [100, 100], 'counts': [0, 20000]}, 'of 20000 pixels, but its image'),
    'too few': ({'size': [100, 100], 'counts': [5, 5]}, 'has run lengths of 10 pixels'),
    'another size': ({'size': [50, 50], 'counts': [0, 2500]}, r'has run lengths of size \[50, 50\], but its'),
    'size of texts': ({'size': ['a', 100], 'counts': [0, 10000]}, r"of size \['a', 100\]"),
    'garbage': ({'size': [100, 100], 'counts': 'zz!~'}, "has run lengths 'zz!~', which cannot be read"),
    'no runs': ({'size': [100, 100], 'counts': []}, 'has run lengths of 0 pixels'),
    'negative': ({'size': [100, 100], 'counts': [-5, 5]}, 'with -5, which is negative'),
    'texts': ({'size': [100, 100], 'counts': ['a']}, "with 'a', which is no whole number"),
    'zigzags': ([[-900, -900, 900, 900] * 1500], 'has polygons with outlines of 5400000 pixels, of which'),
}  # fmt: skip


@pytest.mark.parametrize('name', MASKS)
def test_damaged_masks_of_objects_are_refused(name):
    segmentation, sentence = MASKS[name]
    content = changed(annotation_file(), *A, 'segmentation', segmentation)
    with pytest.raises(DataError, match=rf'annotation 11 of ann.json .*{sentence}'):
        truth_of(content, 'ann.json', masks=True)
    with pytest.raises(DataError, match=rf'annotation 11 of ann.json .*{sentence}'):
        LvisTruth(content, 'ann.json', masks=True)
    # Where boxes are scored, masks do not matter.
    truth_of(content, 'ann.json')
    LvisTruth(content, 'ann.json', masks=False)


@pytest.mark.parametrize('empty', [[], None, {}])
def test_missing_masks_and_sizes_are_refused(empty):
    content = changed(annotation_file(), *A, 'segmentation', empty)
    for read in (truth_of, LvisTruth):
        with pytest.raises(DataError, match=r'annotation 11 of ann.json has no segmentation'):
            read(content, 'ann.json', masks=True)
        sizeless = changed(annotation_file(), *FIRST, 'height', DROP)
        with pytest.raises(DataError, match=r'image 1 of ann.json has the height and width \[None, 100\]'):
            read(sizeless, 'ann.json', masks=True)
        read(sizeless, 'ann.json', masks=False)


def one_result(**more):
    return {
        'image_id': 1,
        'category_id': 1,
        'bbox': [10, 10, 20, 20],
        'score': 0.5,
        'segmentation': POLYGON,
        **more,
    }


@pytest.mark.parametrize('name', MASKS)
def test_damaged_masks_of_results_are_refused(name):
    segmentation, sentence = MASKS[name]
    results = [one_result(), one_result(segmentation=segmentation)]
    truth = truth_of(annotation_file(), 'ann.json', masks=True)
    check_results(results, 'res.json', truth.image_numbers, {1: 'axe', 2: 'bag'}, 'ann.json', ['segm'])
    with pytest.raises(DataError, match=rf'detection 1 .*{sentence}'):
        found_of(results, truth, truth.category_numbers, masks=True)
    with pytest.raises(DataError, match=rf'detection 1 .*{sentence}'):
        from_coco(results, LvisTruth(annotation_file()), 'segm')


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'score': 10**400}, r'detection 0 of res.json has the score 1000.*; it must be a finite number'),
        ({'bbox': [1, 1, 10**400, 1]}, r'has the box \[1, 1, 1000.*; it must be four finite numbers'),
        ({'image_id': True}, 'has the image_id True, which must be a whole number or a text'),
        ({'image_id': 1.0}, r'has the image_id 1\.0, which must be a whole number or a text'),
        ({'image_id': 3}, 'is of image 3, which ann.json does not have'),
        ({'category_id': True}, 'has the category_id True, which must be a whole number or a text'),
        ({'category_id': 1.0}, r'has the category_id 1\.0, which must be a whole number or a text'),
        ({'category_id': 3}, 'has the category_id 3, which ann.json does not have'),
        ({'segmentation': []}, r'has the segmentation \[\], which masks are scored with'),
    ],
)
def test_damaged_results_are_refused(change, sentence):
    truth = truth_of(annotation_file(), 'ann.json', masks=True)
    with pytest.raises(DataError, match=sentence):
        check_results(
            [one_result(**change)], 'res.json', truth.image_numbers, {1: 'axe'}, 'ann.json', ['bbox', 'segm']
        )


@pytest.mark.parametrize('side', [2**31 - 1, 42_949_672, 0, 99.5])
def test_images_that_no_mask_can_be_drawn_on_are_refused(side):
    """pycocotools counts pixels, and fifths of them, in 32 bits; a strip of the first size ends it."""
    content = changed(annotation_file(), *FIRST, 'height', 1)
    content['images'][0]['width'] = side
    content['annotations'][0]['segmentation'] = [[0, 0, 2e9, 0, 2e9, 1]]
    for read in (truth_of, LvisTruth):
        with pytest.raises(DataError, match=rf'image 1 of ann.json has the height and width \[1, {side}\], .*'
                           'write whole numbers from 1 to 42949671'):  # fmt: skip
            read(content, 'ann.json', masks=True)


@pytest.mark.parametrize('coding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])
def test_files_of_other_programs_may_have_a_byte_order_mark(tmp_path, coding):
    path, results = tmp_path / 'ann.json', tmp_path / 'res.json'
    content = changed(annotation_file(), *C, 'name', 'Äxte')
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(coding))
    results.write_bytes(json.dumps([one_result()]).encode(coding))
    assert read_coco(path)['categories'][0]['name'] == 'Äxte'
    assert read_results(results) == [one_result()]


def test_a_file_that_is_no_text_is_not_called_cut_off(tmp_path):
    path = tmp_path / 'file.json'
    path.write_bytes('["Ä"]'.encode('latin-1'))
    for read, name in ((read_coco, 'annotation file'), (read_results, 'result file')):
        with pytest.raises(
            DataError, match=rf'^{name} .*file.json is no text in UTF-8 .*; save it as UTF-8$'
        ):
            read(path)


def test_a_result_file_nested_too_deep_is_no_valid_json(tmp_path):
    path = tmp_path / 'res.json'
    path.write_text('[' * 100_000)
    with pytest.raises(DataError, match='is no valid JSON'):
        read_results(path)


@pytest.mark.parametrize('backend', ['fast', 'reference'])
def test_polygons_runs_and_texts_of_one_mask_score_alike(backend):
    mask = np.zeros((100, 100), np.uint8, order='F')
    mask[10:30, 10:30] = 1
    text = rle.encode(mask)
    kinds = [POLYGON, {'size': [100, 100], 'counts': text['counts'].decode()},
             RUNS]  # fmt: skip
    for truth_kind in kinds:
        content = changed(annotation_file(), *A, 'segmentation', truth_kind)
        truth, lvis = truth_of(content, 'ann.json', masks=True), LvisTruth(content)
        for kind in kinds:
            results = [one_result(segmentation=kind)]
            found = found_of(results, truth, truth.category_numbers, masks=True)
            assert coco_figures(truth, found, 'segm', backend=backend)['AP'] == pytest.approx(0.5)
            rows = from_coco(results, lvis, 'segm')
            assert lvis_figures(lvis, rows, backend=backend)['AP'] == pytest.approx(0.5)


@pytest.mark.parametrize('metric', [CocoMetric, LvisMetric])
@pytest.mark.parametrize(
    ('masks', 'sentence'),
    [
        (
            torch.ones(1, 50, 50, dtype=torch.bool),
            r'image 1 is 100 high and 100 wide, but its masks are \[50, 50\]',
        ),
        ([rle.encode(np.ones((50, 50), np.uint8, order='F'))], r'image 1 .*\[50, 50\]'),
        ([{'size': [100, 100], 'counts': 'zz!~'}], "mask 0 of image 1 has run lengths 'zz!~'"),
    ],
)
def test_masks_of_samples_that_do_not_fit_are_refused(tmp_path, metric, masks, sentence):
    path = tmp_path / 'ann.json'
    path.write_text(json.dumps(annotation_file()))
    built = metric(str(path), 'segm')
    built.dataset_meta = {'classes': ('axe', 'bag')}
    found = {'bboxes': torch.tensor([[10.0, 10, 30, 30]]), 'scores': torch.tensor([0.5]),
             'labels': torch.tensor([0])}  # fmt: skip
    with pytest.raises(DataError, match=sentence):
        built.process(None, [{'img_id': 1, 'pred_instances': {**found, 'masks': masks}}])
    full = torch.zeros(1, 100, 100, dtype=torch.bool)
    full[:, 10:30, 10:30] = True
    built.process(None, [{'img_id': 1, 'pred_instances': {**found, 'masks': full}}])


METRICS = {
    'coco': (CocoMetric, 'coco/{}_AP'),
    'lvis': (LvisMetric, 'lvis/{}_AP'),
    'coda': (CodaMetric, 'coda/{}_AR_agnostic'),
    'recall': (AgnosticRecall, 'agnostic/{}_AR@100'),
}


def figures_of_one(folder, name, metric=('bbox', 'segm'), file=None, **fields):
    """The figures of one detection: of the axe of image 1, or what it is changed to."""
    path = folder / 'ann.json'
    file = file or annotation_file()
    path.write_text(json.dumps(file))
    kind, figure = METRICS[name]
    built = kind(str(path), metric)
    built.dataset_meta = {'classes': [one['name'] for one in file['categories']]}
    found = {
        'bboxes': torch.tensor([[10.0, 10, 30, 30]]),
        'scores': torch.tensor([0.5]),
        'labels': torch.tensor([0]),
        'masks': [RUNS],
        **fields,
    }
    built.process(None, [{'img_id': 1, 'pred_instances': found}])
    figures = built.evaluate(2)
    return [figures[figure.format(one)] for one in metric]


MASK = np.zeros((100, 100), np.uint8, order='F')
MASK[10:30, 10:30] = 1


@pytest.mark.parametrize('name', METRICS)
@pytest.mark.parametrize('mask', [POLYGON, RUNS, rle.encode(MASK)])
def test_masks_of_samples_are_of_any_form(tmp_path, name, mask):
    assert figures_of_one(tmp_path, name, masks=[mask]) == pytest.approx([0.5, 0.5])  # one of two objects


NONE = torch.zeros(0)
LENGTHS = {
    'fewer scores': ({'scores': NONE}, 'image 1 has .*0 scores'),
    'more scores': ({'scores': torch.tensor([0.5, 0.4])}, 'image 1 has .*2 scores'),
    'fewer boxes': ({'bboxes': torch.zeros(0, 4)}, 'image 1 has 0 boxes, 1 scores'),
    'more boxes': ({'bboxes': torch.tensor([[10.0, 10, 30, 30]] * 2)}, 'image 1 has 2 boxes, 1 scores'),
    'fewer labels': ({'labels': NONE.long()}, 'image 1 has .*0 labels'),
    'more labels': ({'labels': torch.tensor([0, 1])}, 'image 1 has .*2 labels'),
    'fewer masks': ({'masks': []}, 'image 1 has .*0 masks'),
    'no mask': ({'masks': torch.zeros(0, 100, 100, dtype=torch.bool)}, 'image 1 has .*0 masks'),
    'fewer mask scores': ({'mask_scores': NONE}, 'image 1 has .*0 mask scores'),
    'a column': ({'scores': torch.tensor([[0.5]])}, r'scores of the shape \[1, 1\], but they are \[N\]'),
    'five numbers': ({'bboxes': torch.zeros(4, 5)}, r'bboxes of the shape \[4, 5\], but they are \[N, 4\]'),
}


@pytest.mark.parametrize('name', METRICS)
@pytest.mark.parametrize('change', LENGTHS)
def test_fields_of_samples_are_as_many(tmp_path, name, change):
    """Otherwise detections would be lost without a word."""
    fields, sentence = LENGTHS[change]
    if name == 'recall' and 'labels' in fields:
        assert figures_of_one(tmp_path, name, **fields) == [0.5, 0.5]  # it reads none
        return
    with pytest.raises(DataError, match=sentence):
        figures_of_one(tmp_path, name, **fields)


@pytest.mark.parametrize('name', ['coco', 'lvis'])
def test_two_categories_of_one_name_are_refused_where_labels_go_by_names(tmp_path, name):
    file = changed(annotation_file(), 'categories', 1, 'name', 'axe')
    with pytest.raises(DataError, match=r"two categories of .*ann.json are called 'axe'; give each its own"):
        figures_of_one(tmp_path, name, ('bbox',), file)
    # Results in files have ids.
    truth = truth_of(file, 'ann.json')
    found = found_of(
        [one_result(), one_result(image_id=2, category_id=2)], truth, truth.category_numbers, False
    )
    assert coco_figures(truth, found)['AP'] == pytest.approx(1)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('name', METRICS)
@pytest.mark.parametrize('backend', ['fast', 'reference'])
def test_boxes_of_any_size_are_scored_without_a_warning(tmp_path, name, backend):
    path = tmp_path / 'ann.json'
    path.write_text(json.dumps(annotation_file()))
    built = METRICS[name][0](str(path), backend=backend)
    built.dataset_meta = {'classes': ('axe', 'bag')}
    huge = torch.tensor([[-1e300, -1e300, 1e300, 1e300], [10, 10, 30, 30]], dtype=torch.float64)
    found = {'bboxes': huge, 'scores': torch.tensor([0.4, 0.5]), 'labels': torch.tensor([0, 0])}
    built.process(None, [{'img_id': 1, 'pred_instances': found}])
    assert built.evaluate(2)[METRICS[name][1].format('bbox')] == pytest.approx(0.5)
    found['bboxes'][0, 0] = -1.7e308
    found['bboxes'][0, 2] = 1.7e308
    with pytest.raises(DataError, match='image 1 has a box or a score that is not finite'):
        built.process(None, [{'img_id': 1, 'pred_instances': found}])
