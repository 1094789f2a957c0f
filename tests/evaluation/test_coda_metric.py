"""CODA's figures: by hand, against raw COCOeval as the official script calls it, and through the Runner."""

import contextlib
import copy
import io
import json
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from warm import spawn_warm

from atss_ext.datasets import CODA_BASE_COMMON, CODA_CLASSES, CODA_COMMON, CodaDataset
from atss_ext.datasets.checks import DataError
from atss_ext.evaluation import CodaMetric
from atss_ext.registry import METRICS

ROOT = Path(__file__).resolve().parents[2]
SIDE = 100
# Ids and order are nobody's; 'truck', 'tram' and most others are absent.
CATEGORIES = {9: 'dog', 1: 'pedestrian', 4: 'car'}
# image, category, box, corner case (None: not said); image 30 has no objects.
OBJECTS = [
    (10, 4, [0, 0, 20, 20], False),
    (10, 9, [50, 50, 20, 20], None),
    (20, 4, [0, 0, 40, 40], True),
    (20, 1, [60, 0, 10, 30], None),
]
CLASSES = ('car', 'sofa', 'pedestrian')
# image: label, xyxy, score. A dog and a car are called sofa; a car is hit with IoU 0.625.
FOUND = {
    10: [(0, [0, 0, 20, 20], 0.9), (1, [50, 50, 70, 70], 0.8)],
    20: [(1, [0, 0, 40, 40], 0.9), (0, [0, 0, 40, 25], 0.5)],
    30: [],
}
CORNER = {'mAR': 0.75, 'AR50': 0.75, 'AR75': 0.75, 'AR1': 0.5, 'AR10': 0.75}
COMMON = {'mAR': 0.325, 'AR50': 0.5, 'AR75': 0.25, 'AR1': 0.325, 'AR10': 0.325}
NOVEL = {'mAR': 1, 'AR50': 1, 'AR75': 1, 'AR1': 0, 'AR10': 1}
BASE = {
    f'{split}_{key}': value
    for split, figures in {'CORNER': CORNER, 'COMMON': COMMON, 'NOVEL': NOVEL}.items()
    for key, value in figures.items()
}
# car: both found at three thresholds, else one of two (51 of 101 recalls); pedestrian: 0.
AP_COMMON = (3 + 7 * 51 / 101) / 10 / 2
OF_2022 = {
    'AP_common': AP_COMMON,
    'AP_agnostic': 76 / 101,
    'AR_agnostic': 0.75,
    'AR_agnostic_corner': 1,
    'Sum': AP_COMMON + 76 / 101 + 1.75,
}


both_backends = pytest.mark.parametrize('backend', ['fast', 'reference'])


def mask_of(box):
    x, y, w, h = (round(value) for value in box)
    mask = np.zeros((SIDE, SIDE), np.uint8, order='F')
    mask[y : y + h, x : x + w] = 1
    return mask


def content_of(objects=OBJECTS, categories=CATEGORIES, images=(10, 20, 30)):
    annotations = []
    for number, (image, category, box, corner, *crowd) in enumerate(objects, 1):
        x, y, w, h = box
        outline = [x, y, x + w, y, x + w, y + h, x, y + h]
        run = rle.encode(mask_of(box))
        annotations.append({
            'id': number,
            'image_id': image,
            'category_id': category,
            'bbox': box,
            'area': w * h,
            'iscrowd': int(bool(crowd and crowd[0])),
            'segmentation': {**run, 'counts': run['counts'].decode()} if crowd and crowd[0] else [outline],
            **({} if corner is None else {'corner_case': corner}),
        })  # fmt: skip
    return {
        'images': [
            {'id': image, 'file_name': f'{image}.png', 'width': SIDE, 'height': SIDE} for image in images
        ],
        'annotations': annotations,
        'categories': [{'id': number, 'name': name} for number, name in categories.items()],
    }


def write(folder, content, name):
    path = folder / name
    path.write_text(json.dumps(content))
    return str(path)


def sample_of(image, found):
    boxes = torch.tensor([box for _, box, _ in found], dtype=torch.float32).reshape(-1, 4)
    masks = [mask_of([x1, y1, x2 - x1, y2 - y1]) for _, (x1, y1, x2, y2), _ in found]
    return {
        'img_id': image,
        'pred_instances': {
            'bboxes': boxes,
            'scores': torch.tensor([score for *_, score in found], dtype=torch.float64),
            'labels': torch.tensor([label for label, *_ in found], dtype=torch.int64),
            'masks': torch.from_numpy(np.array(masks, bool).reshape(-1, SIDE, SIDE)),
        },
    }


def figures_of(path, found=None, images=None, **options):
    metric = CodaMetric(path, **{'classes': CLASSES, **options})
    found = FOUND if found is None else found
    for image, rows in found.items():
        metric.process({}, [sample_of(image, rows)])
    figures = metric.evaluate(len(found))
    assert all(name.startswith('coda/') for name in figures)
    return {name.removeprefix('coda/'): value for name, value in figures.items()}


def prefixed(figures, kind='bbox'):
    return pytest.approx({f'{kind}_{name}': value for name, value in figures.items()}, abs=1e-9)


@both_backends
def test_figures_by_hand(tmp_path, backend):
    base = write(tmp_path, content_of(), 'corner_case.json')
    assert figures_of(base, layout='2022', backend=backend) == prefixed(OF_2022)
    path = write(tmp_path, content_of(), 'annotations.json')
    assert figures_of(path, metric='segm', backend=backend) == prefixed(OF_2022, 'segm')
    unflagged = content_of([(*row[:3], None) for row in OBJECTS])
    base = write(tmp_path, unflagged, 'corner_case.json')
    assert figures_of(base, backend=backend) == prefixed(BASE)
    both = figures_of(base, metric=['bbox', 'segm'], backend=backend)
    assert both == pytest.approx({f'{kind}_{name}': BASE[name] for kind in ('bbox', 'segm') for name in BASE})


def test_a_box_that_is_no_mask_counts_by_its_metric(tmp_path):
    path = write(tmp_path, content_of(), 'annotations.json')
    metric = CodaMetric(path, ['bbox', 'segm'], classes=CLASSES)
    sample = sample_of(10, FOUND[10])
    sample['pred_instances']['masks'][0] = False  # the car's
    metric.process({}, [sample])
    figures = metric.evaluate(1)
    assert figures['coda/bbox_AR_agnostic'] == pytest.approx(2 / 4)
    assert figures['coda/segm_AR_agnostic'] == pytest.approx(1 / 4)


def test_masks_are_ranked_by_their_own_scores(tmp_path):
    path = write(tmp_path, content_of([(*row[:3], None) for row in OBJECTS]), 'corner_case.json')
    metric = CodaMetric(path, ['bbox', 'segm'], classes=CLASSES)
    sample = sample_of(10, FOUND[10])
    sample['pred_instances']['mask_scores'] = torch.tensor([0.1, 0.2])
    metric.process({}, [sample])
    figures = metric.evaluate(1)
    # The first one of the image is the car by its box, and the dog, the one novel object, by its mask.
    assert (figures['coda/bbox_NOVEL_AR1'], figures['coda/segm_NOVEL_AR1']) == (0, 1)


@pytest.mark.parametrize(('name', 'expected'), [('corner_case.json', BASE), ('annotations.json', OF_2022)])
@both_backends
def test_nothing_found_is_0(tmp_path, name, expected, backend):
    path = write(tmp_path, content_of(), name)
    assert figures_of(path, {10: [], 20: [], 30: []}, backend=backend) == prefixed(dict.fromkeys(expected, 0))


@both_backends
def test_no_common_prediction_is_0(tmp_path, backend):
    """The official script stops there."""
    path = write(tmp_path, content_of(), 'annotations.json')
    figures = figures_of(path, {10: [(1, [0, 0, 20, 20], 0.9)]}, backend=backend)
    assert figures['bbox_AP_common'] == 0
    assert figures['bbox_AR_agnostic'] == 0.25


def test_nothing_to_find_is_minus_1(tmp_path):
    path = write(tmp_path, content_of([]), 'annotations.json')
    assert figures_of(path) == prefixed({**dict.fromkeys(OF_2022, -1), 'Sum': 0})
    path = write(tmp_path, content_of([], images=()), 'corner_case.json')
    assert set(CodaMetric(path, classes=CLASSES).compute_metrics([]).values()) == {-1}


def test_crowds_are_neither_missed_nor_matched(tmp_path):
    objects = [(10, 4, [0, 0, 20, 20], True), (10, 4, [50, 50, 40, 40], True, True)]
    path = write(tmp_path, content_of(objects), 'annotations.json')
    found = {10: [(0, [52, 52, 62, 62], 0.9), (0, [60, 60, 70, 70], 0.8), (0, [0, 0, 20, 20], 0.7)]}
    ones = {'AP_common': 1, 'AP_agnostic': 1, 'AR_agnostic': 1, 'AR_agnostic_corner': 1, 'Sum': 4}
    assert figures_of(path, found) == prefixed(ones)


def test_an_annotation_with_id_0_can_be_found(tmp_path):
    content = content_of([(10, 4, [0, 0, 20, 20], True)])
    content['annotations'][0]['id'] = 0
    path = write(tmp_path, content, 'annotations.json')
    assert figures_of(path)['bbox_AR_agnostic'] == 1


def test_names_count_whatever_the_labels(tmp_path):
    """Another order, other classes between, another name for pedestrians: only the names can tell."""
    path = write(tmp_path, content_of([(*row[:3], None) for row in OBJECTS]), 'corner_case.json')
    walker = {**FOUND, 20: [*FOUND[20], (2, [60, 0, 70, 30], 0.4)]}
    expected = figures_of(path, walker)
    assert expected['bbox_COMMON_mAR'] == pytest.approx((0.65 + 1) / 2)
    moved = {0: 3, 1: 0, 2: 2}
    found = {image: [(moved[row[0]], *row[1:]) for row in rows] for image, rows in walker.items()}
    classes = ('sofa', 'bus', 'person', 'car')
    assert figures_of(path, found, classes=classes, aliases={'person': 'pedestrian'}) == expected
    without = figures_of(path, found, classes=classes)
    assert without['bbox_COMMON_mAR'] == pytest.approx(0.325)
    assert without['bbox_CORNER_mAR'] == expected['bbox_CORNER_mAR'] == 1


def test_classes_are_those_of_the_tested_dataset(tmp_path):
    path = write(tmp_path, content_of(), 'annotations.json')
    metric = METRICS.build({'type': 'CodaMetric', 'ann_file': path})
    dataset = CodaDataset(path)
    metric.dataset_meta = dataset.metainfo
    order = {'car': CODA_CLASSES.index('car'), 'sofa': CODA_CLASSES.index('debris')}
    for image, rows in FOUND.items():
        metric.process({}, [sample_of(image, [(order[CLASSES[row[0]]], *row[1:]) for row in rows])])
    figures = metric.evaluate(3)
    assert figures == pytest.approx({f'coda/bbox_{name}': value for name, value in OF_2022.items()})


def test_free_names_need_no_classes(tmp_path):
    """VL-SAM's samples say names, and masks as run lengths."""
    path = write(tmp_path, content_of(), 'annotations.json')
    metric = CodaMetric(path, 'segm')
    for image, rows in FOUND.items():
        sample = sample_of(image, rows)['pred_instances']
        del sample['labels']
        names = [CLASSES[row[0]] for row in rows]
        masks = [rle.encode(np.asfortranarray(mask, np.uint8)) for mask in sample['masks'].numpy()]
        metric.process({}, [{'img_id': image, 'pred_instances': {**sample, 'names': names, 'masks': masks}}])
    figures = metric.evaluate(3)
    assert figures == pytest.approx({f'coda/segm_{name}': value for name, value in OF_2022.items()})


@both_backends
def test_the_class_agnostic_file_has_no_figures_of_names(tmp_path, backend):
    objects = [(image, 1, box, True) for image, _, box, _ in OBJECTS]
    content = content_of(objects, {1: 'corner_case_object'})
    expected = {'AP_agnostic': 76 / 101, 'AR_agnostic': 0.75, 'AR_agnostic_corner': 0.75}
    assert figures_of(write(tmp_path, content, 'annotations.json'), backend=backend) == prefixed(expected)
    expected = {f'CORNER_{key}': value for key, value in CORNER.items()}
    assert figures_of(write(tmp_path, content, 'corner_case.json'), backend=backend) == prefixed(expected)


def oracle(truth, results, iou_type, useful):
    """Score as pycocotools' users do: files in, loadRes, the means of what is not -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        scorer = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), iou_type)
        scorer.params.catIds = useful
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    recall = scorer.eval['recall'][:, :, 0]  # of all areas: [T, K, D]

    def mean(part):
        return part[part > -1].mean()

    recalls = {
        'mAR': scorer.stats[8],
        'AR50': mean(recall[0, :, 2]),
        'AR75': mean(recall[5, :, 2]),
        'AR1': scorer.stats[6],
        'AR10': scorer.stats[7],
    }
    return scorer.stats[0], recalls


def one_category(content):
    entries = [{**entry, 'category_id': 1} for entry in content['annotations']]
    return {**content, 'annotations': entries, 'categories': [{'id': 1, 'name': 'object'}]}


def expected_figures(content, results, iou_type, layout):
    names = {category['id']: category['name'] for category in content['categories']}
    common = CODA_BASE_COMMON if layout == 'base' else CODA_COMMON
    ids = [number for number, name in names.items() if name in common]
    known = [entry for entry in results if entry['category_id'] in names]
    agnostic = [{**entry, 'category_id': 1} for entry in results]

    def only(wanted):
        kept = [entry for entry in content['annotations'] if wanted(entry)]
        return one_category({**content, 'annotations': kept})

    corner = oracle(only(lambda entry: entry['corner_case']), agnostic, iou_type, [1])[1]
    ap_common, of_common = oracle(content, known, iou_type, ids)
    if layout == 'base':
        novel = oracle(only(lambda entry: entry['category_id'] not in ids), agnostic, iou_type, [1])[1]
        splits = {'CORNER': corner, 'COMMON': of_common, 'NOVEL': novel}
        return {f'{split}_{key}': value for split, found in splits.items() for key, value in found.items()}
    ap, recalls = oracle(one_category(content), agnostic, iou_type, [1])
    figures = [ap_common, ap, recalls['mAR'], corner['mAR']]
    return dict(zip(OF_2022, [*figures, sum(figures)], strict=True))


def adversarial(seed):
    """Ties, crowds, more than 100 detections in an image, empty images, detections of unknown names."""
    rng = np.random.default_rng(seed)
    categories = {7: 'misc', 3: 'bus', 1: 'car', 2: 'dog', 8: 'pedestrian', 5: 'truck'}
    names = [*categories.values(), 'sofa', 'tram']
    ids = {name: number for number, name in categories.items()}
    objects, found = [], {}
    for image in range(1, 13):
        boxes = [
            [int(value) for value in (*rng.integers(0, 60, 2), *rng.integers(5, 40, 2))]
            for _ in range(rng.integers(4, 9))
        ]
        rows = [
            (image, int(rng.choice(list(categories))), box, bool(rng.random() < 0.5), rng.random() < 0.2)
            for box in boxes
        ]
        objects += [] if image == 4 else rows
        hits = [box for box in boxes for _ in range(rng.integers(*((30, 60) if image == 2 else (0, 4))))]
        found[image] = []
        for x, y, w, h in [] if image == 5 else hits:
            jitter = rng.integers(-2, 3, 4)
            x1, y1 = max(x + jitter[0], 0), max(y + jitter[1], 0)
            corners = [float(value) for value in (x1, y1, x + w + jitter[2], y + h + jitter[3])]
            found[image].append((int(rng.integers(len(names))), corners, float(rng.integers(1, 6)) / 8))
    results = [
        {
            'image_id': image,
            'category_id': ids.get(names[label], 99),
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'segmentation': rle.encode(mask_of([x1, y1, x2 - x1, y2 - y1])),
            'score': score,
        }
        for image, rows in found.items()
        for label, (x1, y1, x2, y2), score in rows
    ]
    return content_of(objects, categories, range(1, 13)), names, found, results


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('layout', ['base', '2022'])
@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@both_backends
def test_equals_raw_cocoeval(tmp_path, seed, layout, iou_type, backend):
    content, names, found, results = adversarial(seed)
    assert max(map(len, found.values())) > 100
    path = write(tmp_path, content, 'any.json')
    for entry in results if iou_type == 'bbox' else ():
        del entry['segmentation']
    figures = figures_of(path, found, classes=names, layout=layout, metric=iou_type, backend=backend)
    expected = expected_figures(content, results, iou_type, layout)
    assert figures == prefixed(expected, iou_type)
    assert 0 < figures[f'{iou_type}_{next(iter(expected))}'] < 1


@pytest.mark.parametrize('flag', ['false', '0', 2, [], {}, -1, 0.5])
def test_corner_cases_are_flags(tmp_path, flag):
    content = content_of()
    content['annotations'][2]['corner_case'] = flag
    path = write(tmp_path, content, 'annotations.json')
    with pytest.raises(DataError) as error:
        figures_of(path)
    assert str(error.value).startswith(
        f"annotation 3 of {path} has {flag!r} for 'corner_case', which must be 0 or 1; "
    )


@pytest.mark.parametrize(('flags', 'found'), [((0, 1), 1), ((False, True), 1), ((0.0, 1.0), 1), ((0, 0), -1)])
def test_corner_cases_are_said_by_numbers_as_by_truths(tmp_path, flags, found):
    path = write(tmp_path, content_of([(*row[:3], flags[0]) for row in OBJECTS[:3:2]]), 'annotations.json')
    content = json.loads(Path(path).read_text())
    content['annotations'][1]['corner_case'] = flags[1]
    assert figures_of(write(tmp_path, content, 'annotations.json'))['bbox_AR_agnostic_corner'] == found


def test_what_cannot_be_is_said(tmp_path):
    path = write(tmp_path, content_of(), 'annotations.json')
    with pytest.raises(DataError, match=r'image 11 was tested, but .*annotations.json does not have it'):
        figures_of(path, {11: []})
    with pytest.raises(DataError, match='image 10 has the label 2, but there are 2 classes'):
        figures_of(path, {10: [(2, [0, 0, 1, 1], 0.5)]}, classes=('car', 'dog'))
    with pytest.raises(DataError, match='image 10 has a box or a score that is not finite'):
        figures_of(path, {10: [(0, [0, 0, 1, 1], float('nan'))]})
    with pytest.raises(DataError, match="neither the metric nor the dataset says the detector's classes"):
        figures_of(path, classes=None)
    with pytest.raises(
        ValueError, match="classes must be names or a dataset that has classes, but is 'Coco'"
    ):
        CodaMetric(path, classes='Coco')
    with pytest.raises(ValueError, match="metric must be some of bbox, segm, but is 'box'"):
        CodaMetric(path, 'box')
    with pytest.raises(ValueError, match="backend must be 'fast', 'reference' or None, but is 'quick'"):
        CodaMetric(path, backend='quick')
    with pytest.raises(ValueError, match="layout must be 'base', '2022' or None, but is '2021'"):
        CodaMetric(path, layout='2021')
    metric = CodaMetric(path, classes=CLASSES)
    metric.process({}, [sample_of(10, []), sample_of(10, [])])
    with pytest.raises(DataError, match=r'an image of .* was tested twice'):
        metric.evaluate(2)
    content = content_of()
    del content['annotations'][1]['segmentation']
    with pytest.raises(DataError, match=r'annotation 2 of .* has no segmentation'):
        figures_of(write(tmp_path, content, 'boxes.json'), metric='segm')
    content['annotations'][0]['image_id'] = 77
    with pytest.raises(DataError, match=r'annotation 1 of .* is of image 77 and category 4'):
        figures_of(write(tmp_path, content, 'dangling.json'))


def _on_one_of_two(rank, path, store, out):
    """Score this process's images; uneven, the last one there twice, as a sampler fills up."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    metric = CodaMetric(path, classes=CLASSES)
    for image in ([10, 30], [20, 10])[rank]:
        metric.process({}, [sample_of(image, FOUND[image])])
    Path(f'{out}{rank}').write_text(json.dumps(metric.evaluate(3)))
    torch.distributed.destroy_process_group()


def test_two_processes_count_each_image_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # mmengine collects results in a folder of the working directory
    path = write(tmp_path, content_of(), 'annotations.json')
    spawn_warm(_on_one_of_two, (path, str(tmp_path / 'store'), str(tmp_path / 'figures')), nprocs=2)
    expected = pytest.approx({f'coda/bbox_{name}': value for name, value in OF_2022.items()})
    assert [json.loads((tmp_path / f'figures{rank}').read_text()) for rank in range(2)] == [expected] * 2


def _tiny(tmp_path, data):
    """The config with a ResNet-18 of 8 channels on small images."""
    cfg = Config.fromfile(ROOT / 'configs/coda/atss_r50_fpn_1x_coco_coda.py')
    backbone = {'depth': 18, 'base_channels': 8, 'frozen_stages': -1, 'init_cfg': None}
    cfg.merge_from_dict({
        'model.backbone': backbone,
        'model.neck': {'in_channels': [8, 16, 32, 64], 'out_channels': 64},
        'model.bbox_head': {'in_channels': 64, 'feat_channels': 64, 'stacked_convs': 1},
        'model.bbox_head.anchor_generator.octave_base_scale': 2,
        'model.test_cfg.score_thr': 0.0,
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
        'test_dataloader.dataset.data_root': str(data),
        'test_evaluator.ann_file': str(data / 'corner_case.json'),
    })  # fmt: skip
    cfg.test_dataloader.dataset.pipeline[1].scale = (64, 64)
    for part in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'val_dataloader'):
        cfg.pop(part)
    for part in ('val_cfg', 'val_evaluator', 'auto_scale_lr'):
        cfg.pop(part)
    cfg.default_hooks.pop('visualization', None)
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


def test_the_config_tests_a_detector_of_coco(tmp_path):
    """Runner.test gives what its dumped predictions score with raw COCOeval."""
    data = tmp_path / 'coda'
    (data / 'images').mkdir(parents=True)
    content = content_of([(*row[:3], True) for row in OBJECTS])
    write(data, content, 'corner_case.json')
    for image in (10, 20, 30):
        Image.fromarray(np.random.default_rng(image).integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(
            data / f'images/{image}.png'
        )
    cfg = _tiny(tmp_path, data)
    cfg.test_evaluator = [cfg.test_evaluator, {'type': 'DumpResults', 'out_file_path': f'{tmp_path}/out.pkl'}]
    torch.manual_seed(0)
    figures = Runner.from_cfg(cfg).test()
    classes = CocoDataset.METAINFO['classes']
    ids = {'person': 1, 'car': 4, 'dog': 9}
    results = [
        {
            'image_id': sample['img_id'],
            'category_id': ids.get(classes[label], 99),
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'score': score,
        }
        for sample in mmengine.load(tmp_path / 'out.pkl')
        for (x1, y1, x2, y2), label, score in zip(
            *(sample['pred_instances'][key].tolist() for key in ('bboxes', 'labels', 'scores')), strict=True
        )
    ]
    expected = expected_figures(content, results, 'bbox', 'base')
    assert figures == pytest.approx({f'coda/bbox_{name}': value for name, value in expected.items()})
    assert figures['coda/bbox_CORNER_AR50'] > 0
