"""LVIS's two back-ends draw the same curves, and one stands in for the other where it is missing."""

import json
import logging

import numpy as np
import pytest
from lvis_scenes import adversarial_scene, content, figures, plain_figures, random_scene, result
from pycocotools import mask as rle

from atss_ext.evaluation import backend
from atss_ext.evaluation.lvis import LvisMetric, LvisTruth, from_coco
from atss_ext.evaluation.lvis.detections import best_of_categories, best_of_image, searched_only
from atss_ext.evaluation.lvis.fast import fast_curves
from atss_ext.evaluation.lvis.figures import curves

BOX, OTHER = [0, 0, 40, 20], [60, 60, 40, 20]


def both(file, results, iou_type='bbox', limit=None, classes=None, per_category=None):
    """The curves of both back-ends, after the limits."""
    truth = LvisTruth(file, classes=classes)
    rows = from_coco(results, truth, iou_type)
    if limit:
        rows = [best_of_image(row, limit) for row in rows]
    if per_category:
        rows = best_of_categories(rows, per_category)
    rows = [searched_only(row, truth) for row in rows]
    return fast_curves(truth, rows), curves(truth, rows)


def assert_same(pair):
    fast, reference = pair
    for name in ('precision', 'recall'):
        ours, theirs = getattr(fast, name), getattr(reference, name)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('seed', range(25))
def test_curves_of_adversarial_scenes(seed, iou_type):
    file, results = adversarial_scene(seed)
    pair = both(file, results, iou_type)
    assert_same(pair)
    assert 0 < pair[0].precision[0].max() <= 1
    assert_same(both(file, results, iou_type, limit=7))
    assert_same(both(file, results, iou_type, per_category=11, classes=['cup', 'axe']))


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('seed', range(100, 106))
def test_curves_of_random_scenes(seed, iou_type):
    assert_same(both(*random_scene(seed, iou_type), iou_type))


def test_an_ignored_object_is_no_miss_and_no_hit():
    file = content({1: ([], [])}, [(1, 10, BOX), (1, 10, OTHER)])
    file['annotations'][1]['ignore'] = 1
    found = [result(1, 10, 0.9, OTHER), result(1, 10, 0.5, BOX)]
    for backend_ in ('fast', 'reference'):
        assert figures(file, found, backend=backend_)['AP'] == pytest.approx(1)
    # Where it is all there is, the category does not count.
    file['annotations'][0]['ignore'] = 1
    for backend_ in ('fast', 'reference'):
        assert figures(file, found, backend=backend_)['AP'] == -1


def test_equal_scores_rank_by_image_whatever_the_order_of_results():
    file = content({7: ([], []), 3: ([], [])}, [(7, 10, BOX)])
    file['images'][1]['neg_category_ids'] = [10]
    hit, miss = result(7, 10, 0.5, BOX), result(3, 10, 0.5, BOX)
    for found in ([hit, miss], [miss, hit]):
        assert_same(both(file, found))
        assert figures(file, found, backend='fast')['AP'] == pytest.approx(0.5)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_more_than_300_on_an_image(iou_type):
    """The limit an image of hotcoco's LVIS mode must not take the place of ours."""
    file = content({1: ([], [])}, [(1, 10, BOX)])
    found = [*[result(1, 10, 0.9, OTHER)] * 400, result(1, 10, 0.5, BOX)]
    got = figures(file, found, iou_type, protocol='fixed', backend='fast')
    assert got == pytest.approx(figures(file, found, iou_type, protocol='fixed'))
    assert got['AP'] == pytest.approx(1 / 401)
    assert figures(file, found, iou_type, max_dets=401, backend='fast')['AP'] == pytest.approx(1 / 401)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_nothing_found_and_nothing_to_find(iou_type):
    file = content({1: ([20], [])}, [(1, 10, BOX)])
    assert_same(both(file, [], iou_type))
    assert_same(both(file, [result(1, 20, 0.5, BOX)], iou_type))
    empty = content({1: ([10], [])}, [])
    assert_same(both(empty, [], iou_type))
    assert_same(both(empty, [result(1, 10, 0.5, BOX)], iou_type))
    assert figures(empty, [result(1, 10, 0.5, BOX)], iou_type, backend='fast')['AP'] == -1
    assert_same(both(file, [], iou_type, classes=[]))


def test_masks_that_meet_no_object_keep_their_areas():
    """A large miss, of which only the area is kept, is none among small objects."""
    file = content({1: ([], []), 2: ([10], [])}, [(1, 10, [0, 0, 30, 30])])
    found = [result(2, 10, 0.9, [0, 0, 100, 100]), result(1, 10, 0.5, [0, 0, 30, 30])]
    got = figures(file, found, 'segm', backend='fast')
    assert (got['APs'], got['AP']) == (pytest.approx(1), pytest.approx(0.5))


def test_polygons_and_plain_run_lengths_as_results():
    file = content({1: ([], [])}, [(1, 10, BOX)])
    file['annotations'][0]['segmentation'] = {'size': [120, 160], 'counts': [0, 20, 100, 20, 19060]}
    polygon = {'image_id': 1, 'category_id': 10, 'score': 0.5, 'segmentation': [[0, 0, 2, 0, 2, 20, 0, 20]]}
    assert rle.area(rle.frPyObjects(polygon['segmentation'], 120, 160))[0] == 40
    assert_same(both(file, [polygon], 'segm'))
    assert figures(file, [polygon], 'segm', backend='fast')['AP'] == pytest.approx(1)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_the_fast_one_against_the_definitions_in_plain_python(iou_type):
    file, results = random_scene(5, iou_type)
    plain = plain_figures(file, results, iou_type, 'standard', 5)
    assert figures(file, results, iou_type, max_dets=5, backend='fast') == pytest.approx(plain, abs=1e-9)


def test_masks_need_a_truth_with_masks():
    truth = LvisTruth(content({1: ([], [])}, [(1, 10, BOX)]), masks=False)
    rows = from_coco([result(1, 10, 0.5, BOX)], truth, 'segm')
    for draw in (fast_curves, curves):
        with pytest.raises(ValueError, match='masks=False'):
            draw(truth, rows)


def test_without_the_fast_library(tmp_path, monkeypatch):
    """Demanded: refused. Else: the figures of the reference, and one note."""
    monkeypatch.setattr(backend, 'fast_library', lambda: None)
    backend.say_missing.cache_clear()
    with pytest.raises(ValueError, match="backend='fast' needs hotcoco, which is not installed"):
        LvisMetric('ann.json', backend='fast')
    notes = []
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, text, *rest: notes.append(text))
    path = tmp_path / 'lvis.json'
    path.write_text(json.dumps(content({1: ([], [])}, [(1, 10, BOX)])))
    built = LvisMetric(str(path), protocol=['standard', 'fixed'])
    built.process(None, [{'img_id': 1, 'pred_instances': {'bboxes': [[0, 0, 40, 20]], 'scores': [0.5],
                                                          'labels': [0]}}])  # fmt: skip
    assert built.evaluate(1)['lvis/bbox_AP'] == pytest.approx(1)
    backend.say_missing.cache_clear()
    assert [note for note in notes if 'hotcoco' in note] == [backend.MISSING]
