"""COCO's figures of either back-end: by hand, and against pycocotools' own summary."""

import json
import logging

import pytest
import torch
from coco_scenes import FIGURES, NAMES, coco_file, random_scene, reference, result, sample, written
from warm import spawn_warm

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation import backend
from atss_ext.evaluation.coco import CocoMetric
from atss_ext.registry import METRICS

BACKENDS = pytest.mark.parametrize('backend', ['fast', 'reference'])
BOX = [10, 10, 40, 20]


def figures(folder, file, results, names=NAMES, **settings):
    """All images through the metric, in another order than their ids."""
    metric = CocoMetric(written(folder, file), **settings)
    metric.dataset_meta = {'classes': names}
    masks = 'segm' in metric.metrics
    for image in file['images']:
        metric.process(None, [sample(file, image['id'], results, names, masks)])
    return metric.evaluate(len(file['images']))


@BACKENDS
def test_figures_by_hand(tmp_path, backend):
    # The axe is met with an IoU of 0.8: at 7 of 10 thresholds. The bag is met exactly, the cup is not.
    objects = [(1, 10, BOX, 0), (1, 20, [0, 0, 100, 100], 0), (2, 30, BOX, 0)]
    found = [result(1, 10, 0.3, [10, 10, 32, 20]), result(1, 20, 0.1, [0, 0, 100, 100])]
    got = figures(tmp_path, coco_file([1, 2, 3], objects), found, metric=['bbox', 'segm'], backend=backend)
    wanted = {'AP': 1.7 / 3, 'AP50': 2 / 3, 'AP75': 2 / 3, 'APs': 0.35, 'APm': -1, 'APl': 1, 'AR@1': 1.7 / 3,
              'AR@10': 1.7 / 3, 'AR@100': 1.7 / 3, 'ARs@100': 0.35, 'ARm@100': -1, 'ARl@100': 1}  # fmt: skip
    both = {f'coco/{metric}_{name}': value for metric in ('bbox', 'segm') for name, value in wanted.items()}
    assert got == pytest.approx(both)


@BACKENDS
@pytest.mark.parametrize('seed', range(6))
def test_equal_to_pycocotools(tmp_path, backend, seed):
    file, results = random_scene(seed)
    got = figures(tmp_path, file, results, metric=['bbox', 'segm'], backend=backend)
    for iou_type in ('bbox', 'segm'):
        stats = reference(file, results, iou_type).stats
        assert 0.05 < stats[0] < 0.95
        wanted = {f'coco/{iou_type}_{name}': value for name, value in zip(FIGURES, stats, strict=True)}
        assert {name: got[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)


@BACKENDS
def test_nothing_found_is_zero(tmp_path, backend):
    file = coco_file([1, 2], [(1, 10, BOX, 0)])
    got = figures(tmp_path, file, [], metric=['bbox', 'segm'], backend=backend)
    assert got['coco/bbox_AP'] == got['coco/segm_AP'] == got['coco/bbox_AR@100'] == got['coco/bbox_APs'] == 0
    assert got['coco/bbox_APl'] == -1


@BACKENDS
def test_a_file_without_objects(tmp_path, backend):
    got = figures(tmp_path, coco_file([1], []), [result(1, 10, 0.5, BOX)], backend=backend)
    assert set(got.values()) == {-1.0}


@BACKENDS
def test_false_detections_on_empty_images_count(tmp_path, backend):
    hit, miss = result(1, 10, 0.5, BOX), result(2, 10, 0.9, BOX)
    got = figures(tmp_path, coco_file([1, 2], [(1, 10, BOX, 0)]), [hit, miss], backend=backend)
    assert got['coco/bbox_AP'] == pytest.approx(0.5)


@BACKENDS
def test_mask_areas_are_the_masks(tmp_path, backend):
    # A miss of 30 x 30 pixels is small, although its box says 100 x 100: it does no harm among large objects.
    large = [0, 0, 100, 100]
    miss = {**result(1, 10, 0.9, [110, 5, 30, 30]), 'bbox': large}
    file = coco_file([1], [(1, 10, large, 0)])
    got = figures(tmp_path, file, [miss, result(1, 10, 0.5, large)], metric='segm', backend=backend)
    assert got['coco/segm_APl'] == pytest.approx(1)
    assert got['coco/segm_AP'] == pytest.approx(0.5)


def test_labels_are_compared_by_name(tmp_path):
    """The classes come in another order than the file's, one is not the file's, and one of its is missing."""
    file = coco_file([1], [(1, 20, BOX, 0), (1, 30, [80, 40, 40, 20], 0)])
    hit = {'bboxes': torch.tensor([[10.0, 10, 50, 30]] * 2), 'scores': torch.tensor([0.5, 0.9]),
           'labels': torch.tensor([2, 1])}  # fmt: skip
    metric = CocoMetric(written(tmp_path, file), classwise=True)
    metric.dataset_meta = {'classes': ('axe', 'unicorn', 'bag')}
    metric.process(None, [{'img_id': 1, 'pred_instances': hit}])
    got = metric.evaluate(1)
    assert got['coco/bbox_AP'] == pytest.approx(1)
    assert got['coco/bbox_AP_bag'] == pytest.approx(1)
    assert got['coco/bbox_AP_axe'] == -1
    assert 'coco/bbox_AP_cup' not in got


def test_scores_of_masks_rank_masks(tmp_path):
    file = coco_file([1], [(1, 10, BOX, 0)])
    one = sample(file, 1, [result(1, 10, 0.9, BOX), result(1, 10, 0.5, [80, 40, 40, 20])], masks=True)
    one['pred_instances']['mask_scores'] = torch.tensor([0.1, 0.8])
    metric = CocoMetric(written(tmp_path, file), ['bbox', 'segm'])
    metric.dataset_meta = {'classes': NAMES}
    metric.process(None, [one])
    got = metric.evaluate(1)
    assert (got['coco/bbox_AP'], got['coco/segm_AP']) == pytest.approx((1, 0.5))


def test_limits(tmp_path):
    boxes = [[30 * n, 10, 20, 20] for n in range(4)]
    file = coco_file([1], [(1, 10, box, 0) for box in boxes])
    found = [result(1, 10, 1 - n / 10, box) for n, box in enumerate(boxes)]
    got = figures(tmp_path, file, found, max_dets=(3, 1))
    assert (got['coco/bbox_AR@1'], got['coco/bbox_AR@3']) == (0.25, 0.75)
    assert got['coco/bbox_AP'] == pytest.approx(76 / 101)


def test_registered_beside_mmdets():
    assert METRICS.get('atss_ext.CocoMetric') is CocoMetric
    assert METRICS.get('mmdet.CocoMetric') is not CocoMetric


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'img_id': 9}, 'image 9 was tested, but .* does not have it'),
        ({'labels': torch.tensor([4])}, 'image 1 has the label 4, but there are 4 classes'),
        ({'scores': torch.tensor([float('nan')])}, 'image 1 has a box or a score that is not finite'),
    ],
)
def test_samples_that_do_not_fit(tmp_path, change, sentence):
    file = coco_file([1], [(1, 10, BOX, 0)])
    one = sample(file, 1, [result(1, 10, 0.5, BOX)])
    one['pred_instances'].update(
        {key: value for key, value in change.items() if key in one['pred_instances']}
    )
    one['img_id'] = change.get('img_id', 1)
    metric = CocoMetric(written(tmp_path, file))
    metric.dataset_meta = {'classes': NAMES}
    with pytest.raises(DataError, match=sentence):
        metric.process(None, [one])


def test_an_image_tested_twice_is_refused(tmp_path):
    file = coco_file([1, 2], [(1, 10, BOX, 0)])
    metric = CocoMetric(written(tmp_path, file))
    metric.process(None, [sample(file, 1, [])] * 2)
    with pytest.raises(DataError, match='was tested twice'):
        metric.evaluate(2)


def test_files_that_cannot_be_scored_with(tmp_path):
    file = coco_file([1], [(1, 10, BOX, 0)])
    del file['annotations'][0]['segmentation']
    with pytest.raises(DataError, match=r'annotation 1 .* has no segmentation'):
        _ = CocoMetric(written(tmp_path, file), 'segm').truth
    with pytest.raises(DataError, match='none of the classes yak, but axe, bag, cup, dog'):
        _ = CocoMetric(written(tmp_path, file), classes=['yak']).truth
    file['annotations'][0]['image_id'] = 5
    with pytest.raises(DataError, match=r'annotation 1 .* is of image 5'):
        _ = CocoMetric(written(tmp_path, file)).truth


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'metric': 'mask'}, "metric must be some of bbox, segm, but is 'mask'"),
        ({'max_dets': (0, 10)}, 'max_dets must be numbers of at least 1'),
        ({'backend': 'quick'}, "backend must be 'fast', 'reference' or None, but is 'quick'"),
        ({'classes': 'mmdet.BaseDetDataset'}, 'a dataset that has classes'),
    ],
)
def test_wrong_arguments(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        CocoMetric('ann.json', **settings)


def test_without_the_fast_library(tmp_path, monkeypatch, caplog):
    """Demanded: refused. Else: the same figures, and one note."""
    monkeypatch.setattr(backend, 'fast_library', lambda: None)
    backend.say_missing.cache_clear()
    with pytest.raises(
        ValueError, match="backend='fast' needs hotcoco, which is not installed; run pip install"
    ):
        CocoMetric('ann.json', backend='fast')
    notes = []
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, text, *rest: notes.append(text))
    file, results = random_scene(0)
    got = figures(tmp_path, file, results, metric=['bbox', 'segm'])
    backend.say_missing.cache_clear()
    assert got['coco/bbox_AP'] == pytest.approx(reference(file, results, 'bbox').stats[0], abs=1e-9)
    assert notes == [backend.MISSING]


def share(rank, folder):
    """One of two processes: images 0, 2, 4, 6 or 1, 3, 5 and, to make them as many, 0 again."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    file, results = random_scene(1)
    images = [image['id'] for image in file['images']]
    metric = CocoMetric(f'{folder}/ann.json', ['bbox', 'segm'])
    metric.dataset_meta = {'classes': NAMES}
    for image in [*images[rank::2], *images[: rank * (len(images) % 2)]]:
        metric.process(None, [sample(file, image, results, masks=True)])
    got = metric.evaluate(len(images))
    if rank == 0:
        with open(f'{folder}/figures.json', 'w') as stream:
            json.dump(got, stream)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_figures_of_one(tmp_path):
    file, results = random_scene(1)
    alone = figures(tmp_path, file, results, metric=['bbox', 'segm'])
    spawn_warm(share, (str(tmp_path),), nprocs=2)
    assert json.loads((tmp_path / 'figures.json').read_text()) == alone
