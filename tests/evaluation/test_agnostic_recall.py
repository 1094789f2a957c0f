"""Class-agnostic recall: by hand, and against pycocotools without categories."""

import numpy as np
import pytest
import torch
from coco_scenes import coco_file, random_scene, reference, result, sample, written

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.coco import AgnosticRecall
from atss_ext.registry import METRICS

BACKENDS = pytest.mark.parametrize('backend', ['fast', 'reference'])
BOX = [10, 10, 40, 20]


def figures(folder, file, results, **settings):
    metric = AgnosticRecall(written(folder, file), **settings)
    for image in file['images']:
        metric.process(None, [sample(file, image['id'], results, masks='segm' in metric.metrics)])
    return metric.evaluate(len(file['images']))


@BACKENDS
def test_names_do_not_count(tmp_path, backend):
    # Met with IoUs of 1 and 0.8, both by detections of another class; the third object is missed.
    objects = [(1, 10, BOX, 0), (1, 20, [60, 60, 40, 20], 0), (2, 30, BOX, 0)]
    found = [result(1, 40, 0.3, BOX), result(1, 10, 0.9, [60, 60, 32, 20])]
    got = figures(
        tmp_path, coco_file([1, 2], objects), found, metric=['bbox', 'segm'], limits=(1, 100), backend=backend
    )
    wanted = {'AR@1': 0.7 / 3, 'AR50@1': 1 / 3, 'AR75@1': 1 / 3, 'AR@100': 1.7 / 3, 'AR50@100': 2 / 3,
              'AR75@100': 2 / 3}  # fmt: skip
    both = {
        f'agnostic/{metric}_{name}': value for metric in ('bbox', 'segm') for name, value in wanted.items()
    }
    assert got == pytest.approx(both)


@BACKENDS
@pytest.mark.parametrize('seed', range(4))
def test_equal_to_pycocotools(tmp_path, backend, seed):
    file, results = random_scene(seed)
    # pycocotools joins the categories in the order of their ids, which decides between equal scores.
    results.sort(key=lambda one: one['category_id'])
    limits = (3, 100, 300)
    got = figures(tmp_path, file, results, metric=['bbox', 'segm'], limits=limits, backend=backend)
    for iou_type in ('bbox', 'segm'):
        recall = reference(file, results, iou_type, agnostic=True, max_dets=limits).eval['recall'][
            :, 0, 0
        ]  # [T, D]
        wanted = {}
        for place, limit in enumerate(limits):
            wanted[f'agnostic/{iou_type}_AR@{limit}'] = recall[:, place].mean()
            wanted[f'agnostic/{iou_type}_AR50@{limit}'] = recall[0, place]
            wanted[f'agnostic/{iou_type}_AR75@{limit}'] = recall[5, place]
        assert {name: got[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)
        assert recall[0, 0] < recall[0, 1]


@BACKENDS
def test_nothing_found_and_nothing_to_find(tmp_path, backend):
    assert set(figures(tmp_path, coco_file([1], [(1, 10, BOX, 0)]), [], backend=backend).values()) == {0.0}
    found = [result(1, 10, 0.5, BOX)]
    assert set(figures(tmp_path, coco_file([1], []), found, backend=backend).values()) == {-1.0}


def test_only_some_classes_are_to_be_found(tmp_path):
    file = coco_file([1], [(1, 10, BOX, 0), (1, 20, [60, 60, 40, 20], 0)])
    assert figures(tmp_path, file, [result(1, 40, 0.3, BOX)])['agnostic/bbox_AR@100'] == 0.5
    assert figures(tmp_path, file, [result(1, 40, 0.3, BOX)], classes=['axe'])['agnostic/bbox_AR@100'] == 1


def test_samples_without_labels(tmp_path):
    """As of an open-ended model: names, and masks as run lengths."""
    found = result(1, 10, 0.5, BOX)
    instances = {'bboxes': np.array([[10, 10, 50, 30]]), 'scores': torch.tensor([0.5]), 'names': ['a thing'],
                 'masks': [found['segmentation']]}  # fmt: skip
    metric = AgnosticRecall(written(tmp_path, coco_file([1], [(1, 10, BOX, 0)])), ['bbox', 'segm'])
    metric.process(None, [{'img_id': 1, 'pred_instances': instances}])
    assert set(metric.evaluate(1).values()) == {1.0}


def test_wrong_arguments_and_samples(tmp_path):
    assert METRICS.get('atss_ext.AgnosticRecall') is AgnosticRecall
    with pytest.raises(ValueError, match='limits must be numbers of at least 1'):
        AgnosticRecall('ann.json', limits=())
    file = coco_file([1], [])
    metric = AgnosticRecall(written(tmp_path, file), 'segm')
    with pytest.raises(DataError, match="image 1 has no masks, which metric='segm' needs"):
        metric.process(None, [sample(file, 1, [])])
