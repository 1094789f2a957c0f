"""The configs that train and test ATSS on LVIS, SODA10M and CODA: what they say, and nothing else."""

import json
import math
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from atss_ext.evaluation import CodaMetric, LvisMetric
from atss_ext.registry import DATASETS, METRICS, MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
COCO = 'atss/atss_r50_fpn_1x_coco.py'
LVIS = 'lvis/atss_r50_fpn_sample1e-3_1x_lvis-v1.py'
SODA = 'coda/atss_r50_fpn_1x_soda10m.py'
SODA_CLASSES = ('Pedestrian', 'Cyclist', 'Car', 'Truck', 'Tram', 'Tricycle')
CLASSES = {
    LVIS: 1203,
    'lvis/atss_r101_fpn_sample1e-3_1x_lvis-v1.py': 1203,
    'lvis/atss_r50_fpn_sample1e-3_ms-2x_lvis-v1.py': 1203,
    'lvis/atss_r50_fpn_sample1e-3_1x_lvis-v1_fixed-ap.py': 1203,
    'coda/atss_r50_fpn_1x_coco_coda.py': 80,
    SODA: 6,
    'coda/atss_r50_fpn_1x_soda10m_coda2022-val.py': 6,
    'coda/atss_r50_fpn_1x_soda10m_coda2022-test.py': 6,
}
MS_SCALES = [(1333, 640), (1333, 672), (1333, 704), (1333, 736), (1333, 768), (1333, 800)]
LVIS_FILE = 'data/lvis_v1/annotations/lvis_v1_val.json'
LVIS_TEST = {'type': 'atss_ext.LvisDataset', 'data_root': 'data/lvis_v1/', 'data_prefix.img': '',
             'ann_file': 'annotations/lvis_v1_val.json'}  # fmt: skip
LVIS_EVALUATOR = {'type': 'atss_ext.LvisMetric', 'ann_file': LVIS_FILE,
                  'format_only': None, 'backend_args': None}  # fmt: skip


def put(prefix, values):
    return {f'{prefix}.{key}': value for key, value in values.items()}


def coda_2022(split):
    root = f'data/coda2022/{split}/'
    return {
        **put('test_dataloader.dataset', {
            'data_root': root, 'ann_file': 'annotations.json', 'layout': '2022'}),
        **put('test_evaluator', {'ann_file': f'{root}annotations.json', 'layout': '2022'}),
    }  # fmt: skip


# Config: what it is made from, and every setting that differs there (None: gone).
DIFFERENCES = {
    LVIS: (COCO, {
        'model.bbox_head.num_classes': 1203,
        'model.test_cfg.score_thr': 1e-4,
        'model.test_cfg.max_per_img': 300,
        **put('train_dataloader.dataset', {
            'type': 'ClassBalancedDataset', 'oversample_thr': 1e-3, 'ann_file': None, 'data_root': None,
            'data_prefix.img': None, 'filter_cfg.filter_empty_gt': None, 'filter_cfg.min_size': None,
            'pipeline': None, 'backend_args': None}),
        **put('train_dataloader.dataset.dataset', {
            **LVIS_TEST, 'ann_file': 'annotations/lvis_v1_train.json', 'filter_cfg.filter_empty_gt': True,
            'filter_cfg.min_size': 32, 'pipeline': 'of the base'}),
        **put('val_dataloader.dataset', LVIS_TEST), **put('test_dataloader.dataset', LVIS_TEST),
        **put('val_evaluator', LVIS_EVALUATOR), **put('test_evaluator', LVIS_EVALUATOR),
    }),
    'lvis/atss_r101_fpn_sample1e-3_1x_lvis-v1.py': (LVIS, {
        'model.backbone.depth': 101,
        'model.backbone.init_cfg.checkpoint': 'torchvision://resnet101',
    }),
    'lvis/atss_r50_fpn_sample1e-3_1x_lvis-v1_fixed-ap.py': (LVIS, {
        'model.test_cfg.nms_pre': 10_000, 'model.test_cfg.score_thr': 0.0,
        'model.test_cfg.max_per_img': 100_000, 'test_evaluator.protocol': 'fixed',
    }),
    'coda/atss_r50_fpn_1x_soda10m_coda2022-val.py': (SODA, coda_2022('val')),
    'coda/atss_r50_fpn_1x_soda10m_coda2022-test.py': (SODA, coda_2022('test')),
}  # fmt: skip
SECTIONS = ('model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator',
            'test_evaluator', 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'param_scheduler',
            'default_hooks', 'env_cfg', 'auto_scale_lr', 'default_scope')  # fmt: skip


def load(name):
    return Config.fromfile(CONFIGS / name)


def plain(value):
    """Without the scope mmengine marks inherited parts with, which is mmdet's everywhere."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != '_scope_'}
    return [plain(item) for item in value] if isinstance(value, list) else value


def flat(value, prefix=''):
    """Every setting by its path; a list is one setting."""
    if not isinstance(value, dict):
        return {prefix: value}
    inner = [flat(item, f'{prefix}.{key}' if prefix else key) for key, item in value.items()]
    return {path: leaf for part in inner for path, leaf in part.items()}


def settings(name):
    content = plain(load(name).to_dict())
    return flat({key: content[key] for key in SECTIONS if key in content})


def differences(name, base):
    ours, theirs = settings(name), settings(base)
    keys = ours.keys() | theirs.keys()
    return {key: ours.get(key) for key in keys if ours.get(key, 'absent') != theirs.get(key, 'absent')}


def test_the_table_names_every_config():
    found = {f'{path.parent.name}/{path.name}' for path in CONFIGS.glob('[!_]*/atss_*.py')}
    others = {COCO, 'atss/atss_r101_fpn_1x_coco.py', 'demo/atss_r18_bccd.py', 'demo/atss_r18_shapes.py'}
    others.add('pseudo/atss_r18_shapes_pseudo.py')
    assert found - others == set(CLASSES)


@pytest.mark.parametrize('name', DIFFERENCES)
def test_a_config_differs_only_where_it_should(name):
    base, expected = DIFFERENCES[name]
    if name == LVIS:
        expected = {**expected, 'train_dataloader.dataset.dataset.pipeline':
                    settings(COCO)['train_dataloader.dataset.pipeline']}  # fmt: skip
    assert differences(name, base) == expected


def test_two_schedules_at_six_sizes():
    name = 'lvis/atss_r50_fpn_sample1e-3_ms-2x_lvis-v1.py'
    found = differences(name, LVIS)
    pipeline, schedule = found.pop('train_dataloader.dataset.dataset.pipeline'), found.pop('param_scheduler')
    assert found == {'train_cfg.max_epochs': 24}
    single = settings(LVIS)['train_dataloader.dataset.dataset.pipeline']
    assert pipeline[:2] + pipeline[3:] == single[:2] + single[3:]
    assert pipeline[2] == {'type': 'RandomChoiceResize', 'scales': MS_SCALES, 'keep_ratio': True}
    once = settings(LVIS)['param_scheduler']
    assert schedule == [once[0], {**once[1], 'end': 24, 'milestones': [16, 22]}]


def test_soda10m_takes_the_place_of_coco_and_coda_that_of_its_test():
    cfg = load(SODA)
    changed = differences(SODA, COCO)
    assert {key for key in changed if not key.startswith(('test_', 'train_data', 'val_data'))} == {
        'model.bbox_head.num_classes', 'val_evaluator.ann_file'}  # fmt: skip
    for split, part in (('train', cfg.train_dataloader.dataset), ('val', cfg.val_dataloader.dataset)):
        assert (part.type, part.data_root, part.ann_file, part.data_prefix.img, part.metainfo.classes) == (
            'CocoDataset', 'data/soda10m/', f'annotations/instance_{split}.json', f'{split}/', SODA_CLASSES
        )  # fmt: skip
    assert (cfg.val_evaluator.type, cfg.val_evaluator.ann_file) == (
        'CocoMetric', 'data/soda10m/annotations/instance_val.json'
    )  # fmt: skip
    assert (
        cfg.test_dataloader.to_dict() == load('coda/atss_r50_fpn_1x_coco_coda.py').test_dataloader.to_dict()
    )
    assert cfg.test_evaluator.to_dict() == {
        'type': 'atss_ext.CodaMetric', 'ann_file': 'data/coda/corner_case.json', 'classes': SODA_CLASSES,
        'aliases': {name: name.lower() for name in SODA_CLASSES},
    }  # fmt: skip


@pytest.mark.parametrize(('name', 'count'), CLASSES.items())
def test_the_model_and_the_metric_build(name, count):
    cfg = load(name)
    init_default_scope('mmdet')
    cfg.model.bbox_head.update(
        train_cfg=cfg.model.train_cfg, test_cfg=cfg.model.test_cfg, feat_channels=32, in_channels=32
    )
    head = MODELS.build(cfg.model.bbox_head)
    assert (head.num_classes, head.atss_cls.out_channels) == (count, count)
    metric = METRICS.build(cfg.test_evaluator)
    if name.startswith('lvis'):
        assert isinstance(metric, LvisMetric)
        assert metric.protocols == ['fixed' if 'fixed' in name else 'standard']
        assert (metric.max_dets, metric.per_category) == (300, 10_000)
    else:
        assert isinstance(metric, CodaMetric)
        assert len(metric.classes) == count
        assert metric.layout == ('2022' if '2022' in name else None)


def test_rare_images_come_as_often_as_the_paper_says(tmp_path):
    """r(image) = max over its categories of max(1, sqrt(t / f)), Gupta et al. 2019, appendix B, at t = 1e-3.

    Of 4,000 images one has a hat (f = 1/4000: r = 2), two have a cup (r = sqrt 2), all have a bag; one more
    has nothing, and is left out before anything is counted.
    """
    contents = {1: ['bag', 'hat'], 2: ['bag', 'cup'], 3: ['bag', 'cup', 'cup'], 4001: []}
    contents |= {image: ['bag'] for image in range(4, 4001)}
    names = ['bag', 'cup', 'hat']
    file = {
        'images': [
            {'id': image, 'width': 64, 'height': 64, 'neg_category_ids': [],
             'not_exhaustive_category_ids': [],
             'coco_url': f'http://images.cocodataset.org/train2017/{image}.jpg'} for image in contents
        ],
        'annotations': [
            {'id': 10 * image + place, 'image_id': image, 'category_id': names.index(name) + 1,
             'bbox': [1, 1, 9, 9], 'area': 81} for image, some in contents.items()
            for place, name in enumerate(some)
        ],
        'categories': [{'id': place, 'name': name, 'frequency': 'r'} for place, name in enumerate(names, 1)],
    }  # fmt: skip
    (tmp_path / 'file.json').write_text(json.dumps(file))
    wrapper = load(LVIS).train_dataloader.dataset
    wrapper.dataset.update(
        data_root=str(tmp_path), ann_file='file.json', pipeline=[], metainfo={'classes': names},
        serialize_data=False,
    )  # fmt: skip
    init_default_scope('mmdet')
    dataset = DATASETS.build(wrapper)
    inner = dataset.dataset
    assert len(inner) == 4000
    factors = dataset._get_repeat_factors(inner, dataset.oversample_thr)
    found = {inner.get_data_info(place)['img_id']: factor for place, factor in enumerate(factors)}
    assert {image: found.pop(image) for image in (1, 2, 3)} == pytest.approx(
        {1: 2.0, 2: math.sqrt(2), 3: math.sqrt(2)}
    )
    assert set(found.values()) == {1.0}
    # mmengine rounds factors up: each of the three images comes twice.
    assert len(dataset) == 4003
