"""LVIS AP and fixed AP, against figures by hand and against the definitions written out in plain Python."""

import copy
import json
import time

import lvis_scenes
import numpy as np
import pytest
import torch
from lvis_scenes import SIZE, content, figures, plain_figures, random_scene, result
from pycocotools import mask as rle
from warm import spawn_warm

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.lvis import LvisTruth, metric
from atss_ext.registry import METRICS

BOX, OTHER = [0, 0, 40, 20], [60, 60, 40, 20]


@pytest.fixture(params=['fast', 'reference'], autouse=True)
def backend(request, monkeypatch):
    """Each test is one of both."""
    monkeypatch.setattr(lvis_scenes, 'BACKEND', request.param)
    return request.param


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_iou_thresholds_and_groups_by_hand(iou_type):
    # The axe is met with an IoU of 0.8, at 7 of 10 thresholds; the dog exactly; the elk not at all.
    file = content({1: ([], [])}, [(1, 10, BOX), (1, 40, [0, 0, 100, 100]), (1, 50, OTHER)])
    found = [result(1, 10, 0.3, [0, 0, 32, 20]), result(1, 40, 0.1, [0, 0, 100, 100])]
    assert figures(file, found, iou_type) == pytest.approx({
        'AP': 1.7 / 3, 'AP50': 2 / 3, 'AP75': 2 / 3, 'APs': 0.35, 'APm': -1, 'APl': 1,
        'APr': 0.7, 'APc': 1, 'APf': 0, 'AR@300': 1.7 / 3, 'ARs@300': 0.35, 'ARm@300': -1, 'ARl@300': 1,
    })  # fmt: skip


def test_detections_count_where_the_image_was_searched_only():
    file = content({1: ([], []), 2: ([10], []), 3: ([], [])}, [(1, 10, BOX)])
    hit = result(1, 10, 0.5, BOX)
    assert figures(file, [hit, result(3, 10, 0.9, BOX)])['AP'] == pytest.approx(1)
    assert figures(file, [hit, result(2, 10, 0.9, BOX)])['AP'] == pytest.approx(0.5)
    assert figures(file, [hit, result(1, 10, 0.9, OTHER)])['AP'] == pytest.approx(0.5)


def test_where_not_all_objects_are_labelled_a_miss_is_no_error():
    file = content({1: ([], [10])}, [(1, 10, BOX)])
    assert figures(file, [result(1, 10, 0.5, BOX), result(1, 10, 0.9, OTHER)])['AP'] == pytest.approx(1)
    # But a labelled object is found or not.
    assert figures(file, [result(1, 10, 0.9, OTHER)])['AP'] == 0


def test_an_object_that_counts_is_met_before_one_that_is_ignored():
    # Among small objects only the first counts; its IoU is 992 / 1152, the second's is 1.
    file = content({1: ([], [])}, [(1, 10, [0, 0, 32, 31]), (1, 10, [0, 0, 32, 36])])
    assert figures(file, [result(1, 10, 0.5, [0, 0, 32, 36])])['APs'] == pytest.approx(0.8)


def test_of_objects_with_equal_ious_the_last_is_met():
    file = content({1: ([], [])}, [(1, 10, [0, 0, 40, 20]), (1, 10, [20, 0, 40, 20])])
    found = [result(1, 10, 0.9, [10, 0, 40, 20]), result(1, 10, 0.5, [0, 0, 40, 20])]
    assert figures(file, found)['AP50'] == pytest.approx(1)


def test_limits():
    # The only hit is second on its image over all categories, and second of its category over all images.
    file = content({1: ([], []), 2: ([10], [])}, [(1, 10, BOX), (2, 20, BOX)])
    found = [result(1, 10, 0.5, BOX), result(1, 30, 0.6, OTHER), result(2, 10, 0.9, BOX)]
    assert figures(file, found, max_dets=1)['APr'] == 0
    assert figures(file, found, max_dets=2)['APr'] == pytest.approx(0.25)
    assert figures(file, found, protocol='fixed', max_dets=1)['APr'] == pytest.approx(0.25)
    assert figures(file, found, protocol='fixed', per_category=1)['APr'] == 0


def test_nothing_found_gives_0():
    file = content({1: ([], [])}, [(1, 10, BOX)])
    for protocol in ('standard', 'fixed'):
        assert figures(file, [], protocol=protocol)['AP'] == 0
        assert figures(file, [], 'segm', protocol=protocol)['APr'] == 0
        assert figures(file, [result(1, 20, 0.5, BOX)], protocol=protocol)['APr'] == 0


def test_of_masks_the_area_is_the_masks():
    # The object is small, the miss has a large box and a small mask: it counts among the small ones.
    file = content({1: ([], [])}, [(1, 10, BOX)])
    thin = np.eye(*SIZE, dtype=np.uint8)
    miss = {**result(1, 10, 0.9, [0, 0, 120, 120]), 'segmentation': rle.encode(np.asfortranarray(thin))}
    found = [miss, result(1, 10, 0.5, BOX)]
    assert figures(file, found, 'segm')['APs'] == pytest.approx(0.5)
    assert figures(file, found, 'bbox')['APs'] == pytest.approx(1)


def test_more_masks_on_an_image_than_pycocotools_measures_at_once():
    file = content({1: ([], [])}, [(1, 10, BOX)])
    found = [result(1, 10, 0.9, OTHER)] * 299 + [result(1, 10, 0.5, BOX)]
    assert figures(file, found, 'segm')['AP'] == pytest.approx(1 / 300)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize(('protocol', 'limit'), [('standard', 300), ('standard', 5), ('fixed', 9)])
@pytest.mark.parametrize('seed', range(3))
def test_as_the_definitions_in_plain_python(seed, protocol, limit, iou_type):
    file, results = random_scene(seed, iou_type)
    name = 'max_dets' if protocol == 'standard' else 'per_category'
    ours = figures(file, results, iou_type, protocol=protocol, **{name: limit})
    plain = plain_figures(file, results, iou_type, protocol, limit)
    assert 0.05 < ours['AP'] < 0.95
    assert ours == pytest.approx(plain, abs=1e-9)


# As a metric of mmengine.


@pytest.fixture
def scene(tmp_path):
    file, results = random_scene(7, 'segm')
    path = tmp_path / 'lvis.json'
    plain = copy.deepcopy(file)
    for one in plain['annotations']:
        del one['mask']
    path.write_text(json.dumps(plain))
    return path, file, results


CLASSES = ('elk', 'axe', 'cup', 'bag', 'dog')
"""In another order than the file's."""


def samples(file, results, encoded=False):
    """What a detector hands to a metric, an image each."""
    ids = {one['name']: one['id'] for one in file['categories']}
    labels = {ids[name]: label for label, name in enumerate(CLASSES)}
    for image in file['images']:
        own = [one for one in results if one['image_id'] == image['id']]
        boxes = torch.tensor([one['bbox'] for one in own], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = torch.from_numpy(np.array([one['mask'] for one in own], bool).reshape(-1, *SIZE))
        found = {
            'bboxes': boxes, 'scores': torch.tensor([one['score'] for one in own], dtype=torch.float64),
            'labels': torch.tensor([labels[one['category_id']] for one in own], dtype=torch.int64),
            'masks': [one['segmentation'] for one in own] if encoded else masks,
        }  # fmt: skip
        yield {'img_id': image['id'], 'pred_instances': found}


def build(path, **settings):
    built = METRICS.build({
        'type': 'atss_ext.LvisMetric', 'ann_file': str(path), 'backend': lvis_scenes.BACKEND, **settings
    })  # fmt: skip
    built.dataset_meta = {'classes': CLASSES}
    return built


BOTH = {'metric': ['bbox', 'segm'], 'protocol': ['standard', 'fixed'], 'max_dets': 4, 'per_category': 9}


def expected(file, results):
    out = {}
    for iou_type in ('bbox', 'segm'):
        for protocol, middle in (('standard', ''), ('fixed', 'fixed_')):
            found = figures(file, results, iou_type, protocol=protocol, max_dets=4, per_category=9)
            out.update({f'lvis/{iou_type}_{middle}{name}': value for name, value in found.items()})
    return out


@pytest.mark.parametrize('encoded', [False, True])
def test_the_metric_gives_the_same_figures(scene, encoded):
    path, file, results = scene
    built = build(path, **BOTH)
    for sample in samples(file, results, encoded):
        built.process(None, [sample])
    given = built.evaluate(len(file['images']))
    assert len(given) == 52
    assert given == pytest.approx(expected(file, results))
    # The standard protocol alone lets go of most detections early.
    built = build(path, metric='segm', max_dets=4)
    built.process(None, list(samples(file, results, encoded)))
    alone = built.evaluate(len(file['images']))
    assert alone == {name: given[name] for name in alone}


def test_limiting_early_changes_nothing(scene, monkeypatch):
    path, file, results = scene
    monkeypatch.setattr(metric, '_FEW', 1)
    built = build(path, **{**BOTH, 'per_category': 3, 'max_dets': 2})
    for sample in samples(file, results):
        built.process(None, [sample])
    built._limit()
    kept = sum(len(one.scores) for row in built.results for one in row.values())
    assert kept < 0.6 * 2 * len(results)
    given = built.evaluate(len(file['images']))
    for iou_type in ('bbox', 'segm'):
        fixed = figures(file, results, iou_type, protocol='fixed', per_category=3)
        standard = figures(file, results, iou_type, max_dets=2)
        assert [given[f'lvis/{iou_type}_fixed_AP'], given[f'lvis/{iou_type}_AP']] == pytest.approx(
            [fixed['AP'], standard['AP']]
        )


def test_no_results_at_all(scene):
    given = build(scene[0]).evaluate(0)
    assert (given['lvis/bbox_AP'], given['lvis/bbox_APr'], given['lvis/bbox_AR@300']) == (0, 0, 0)


def test_classes_that_are_a_part_of_the_categories(scene):
    path, file, results = scene
    built = build(path)
    built.dataset_meta = {'classes': CLASSES[:2]}
    ids = {one['id'] for one in file['categories'] if one['name'] in CLASSES[:2]}
    own = [one for one in results if one['category_id'] in ids]
    built.process(None, list(samples(file, own)))
    part = {
        **file,
        'categories': [one for one in file['categories'] if one['id'] in ids],
        'annotations': [one for one in file['annotations'] if one['category_id'] in ids],
    }
    assert built.evaluate(11)['lvis/bbox_AP'] == pytest.approx(figures(part, own)['AP'])


def _process(rank, folder, backend):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    file, results = random_scene(7, 'segm')
    built = build(f'{folder}/lvis.json', **BOTH, backend=backend)
    everything = list(samples(file, results))
    # 11 images: the second process gets 5 of its own and repeats the first image, as mmengine's sampler does.
    built.process(None, [*everything, everything[0]][rank::2])
    given = built.evaluate(len(everything))
    with open(f'{folder}/given{rank}.json', 'w') as stream:
        json.dump(given, stream)
    torch.distributed.destroy_process_group()


# Back-ends score what the main process has collected: one of them is enough here.
@pytest.mark.parametrize('backend', ['fast'], indirect=True)
def test_two_processes_with_uneven_shares(scene, tmp_path, monkeypatch, backend):
    _, file, results = scene
    monkeypatch.chdir(tmp_path)  # mmengine collects results in a folder of the working directory
    context = spawn_warm(_process, args=(str(tmp_path), backend), nprocs=2, join=False)
    deadline = time.monotonic() + 120
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < deadline, 'the two processes wait for each other'
    finally:
        for process in context.processes:
            process.kill()
    for rank in range(2):
        given = json.loads((tmp_path / f'given{rank}.json').read_text())
        assert given == pytest.approx(expected(file, results))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda sample: sample.update(img_id=99), 'image 99 was tested, but'),
        (lambda sample: sample['pred_instances'].pop('masks'), 'has no masks'),
        (lambda sample: sample['pred_instances']['scores'].fill_(float('nan')), 'not finite'),
        (lambda sample: sample['pred_instances']['labels'].fill_(-1), r'label -1, but there are \d+ classes'),
        (lambda sample: sample['pred_instances']['labels'].fill_(99), r'label 99, but there are \d+ classes'),
    ],
)
def test_detections_that_do_not_fit_are_refused(scene, change, message):
    path, file, results = scene
    built = build(path, metric='segm')
    sample = max(samples(file, results), key=lambda one: len(one['pred_instances']['scores']))
    change(sample)
    with pytest.raises(DataError, match=message):
        built.process(None, [sample])


def test_a_box_that_is_not_finite_is_refused(scene):
    path, file, results = scene
    sample = max(samples(file, results), key=lambda one: len(one['pred_instances']['scores']))
    sample['pred_instances']['bboxes'][0, 2] = float('nan')
    with pytest.raises(DataError, match='a box or a score that is not finite'):
        build(path).process(None, [sample])


def test_an_image_tested_twice_is_refused(scene):
    path, file, results = scene
    built = build(path)
    built.process(None, [next(samples(file, results))] * 2)
    with pytest.raises(DataError, match='tested twice'):
        built.evaluate(2)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda file: file['images'][0].pop('neg_category_ids'), "no list 'neg_category_ids'"),
        (lambda file: file['categories'][1].pop('frequency'), 'category 20 of .* has the frequency None'),
        (lambda file: file.pop('annotations'), "no list 'annotations'"),
        (lambda file: file['categories'].pop(), "no category 'elk'"),
    ],
)
def test_files_that_are_not_lvis_are_refused(change, message):
    file = content({1: ([], [])}, [(1, 10, BOX)])
    change(file)
    with pytest.raises(DataError, match=message):
        LvisTruth(file, 'val.json', CLASSES)


@pytest.mark.parametrize(
    'settings',
    [{'metric': 'proposal'}, {'protocol': []}, {'protocol': 'top'}, {'max_dets': 0}, {'backend': 'quick'}],
)
def test_settings_that_do_not_exist_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        build('val.json', **settings)


@pytest.mark.parametrize(
    ('one', 'message'),
    [
        ({'image_id': 9}, 'image 9'),
        ({'image_id': 1, 'category_id': 10, 'score': 1}, "no 'bbox'"),
    ],
)
def test_result_files_that_do_not_fit_are_refused(one, message):
    with pytest.raises(DataError, match=message):
        figures(content({1: ([], [])}, [(1, 10, BOX)]), [one])
