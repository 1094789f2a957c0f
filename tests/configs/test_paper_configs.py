"""configs/paper: what every config resolves to, beside the literal table of paper_rows.py."""

import inspect

import pytest
from paper_rows import (
    BACKBONES,
    DCN_STAGES,
    LOSSES,
    MILESTONES,
    PAPER,
    PREPROCESSING,
    ROWS,
    TTA,
    anchors_of,
    assigner_of,
    config_of,
    plain,
    sides_of,
)

import atss_ext.assigners
from atss_ext.cli.config_chain import read_chain
from atss_ext.cli.config_keys import find_unread

# What rows take from, and no row itself.
PARTS = {'_base_/coco_test-dev.py'}
# AP per table as printed in the paper; the zoo as in the official README. Guards the copy in paper_rows.py.
PRINTED = {
    'table1': '32.5 33.4 34.9 35.3 36.8 37.0 37.8',
    'table2': '37.0 36.9 37.8 37.8',
    'table3': '37.0 39.3 37.8 38.6 39.2',
    'table4': '38.0 38.8 39.1 39.3 39.1 39.0 39.1 39.2 38.9',
    'table5': '39.0 39.2 39.3 39.3 38.9',
    'table6': '39.1 39.0 39.3 39.3 39.1',
    'table7': '36.3 38.4 39.2 39.3 39.2 39.3',
    'table8': '43.6 45.1 45.6 46.3 47.7 47.7 50.6 50.7',
    'zoo': '39.3 43.2 - - 43.5 46.1 44.8 47.7 45.5 47.7 - -',
}


@pytest.fixture(params=ROWS.values(), ids=list(ROWS))
def row(request):
    return request.param


@pytest.fixture
def cfg(row):
    return plain(config_of(row)._cfg_dict)


def test_every_file_is_a_row_and_every_row_a_file():
    found = {path.relative_to(PAPER).as_posix() for path in PAPER.rglob('*') if path.is_file()}
    assert {name for name in found if '__pycache__' not in name} == {
        row.file for row in ROWS.values()
    } | PARTS


def test_the_literal_table_has_every_printed_figure():
    for table, printed in PRINTED.items():
        assert [row.ap for row in ROWS.values() if row.file.startswith(table)] == printed.split()
    assert sum(len(printed.split()) for printed in PRINTED.values()) == len(ROWS)


def test_a_config_is_short_and_stands_on_others(row):
    lines = (PAPER / row.file).read_text().splitlines()
    assert 3 <= len(lines) <= 20
    assert sum(line.startswith('_base_ = ') for line in lines) == 1
    if row.ap != '-':  # or the heir of a row says where its figure is
        assert f'{row.ap} AP' in lines[0]


def test_every_key_is_read_by_something(row):
    """As tools/analysis/check_config.py --strict finds it."""
    findings = find_unread(config_of(row), read_chain(str(PAPER / row.file), row.file).flat())
    assert [f'{item.path}: {item.message}' for item in findings] == []


def test_backbone(row, cfg):
    kind, depth, groups, width, weights, learns = BACKBONES[row.net]
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.depth, backbone.get('groups', 1), backbone.get('base_width')) == (
        kind, depth, groups, width
    )  # fmt: skip
    assert backbone.init_cfg.to_dict() == {'type': 'Pretrained', 'checkpoint': weights}
    assert backbone.norm_cfg.to_dict() == {'type': 'BN', 'requires_grad': learns}
    assert (backbone.frozen_stages, backbone.norm_eval, backbone.style) == (1, True, 'pytorch')
    stages = DCN_STAGES[row.dcn]
    assert tuple(backbone.get('stage_with_dcn', (False,) * 4)) == stages
    if any(stages):
        assert backbone.dcn.to_dict() == {'type': 'DCNv2', 'deform_groups': 1, 'fallback_on_stride': False}
    else:
        assert 'dcn' not in backbone
    mean, deviation, turned = PREPROCESSING[row.net]
    seen = cfg.model.data_preprocessor
    assert (seen.mean, seen.std, seen.bgr_to_rgb) == (mean, deviation, turned)


def test_head(row, cfg):
    head = cfg.model.bbox_head
    assert head.type == 'atss_ext.ATSSHead'
    base, scales, ratios = anchors_of(row)
    assert head.anchor_generator.to_dict() == {
        'type': 'AnchorGenerator', 'octave_base_scale': base, 'scales_per_octave': scales, 'ratios': ratios,
        'strides': [8, 16, 32, 64, 128],
    }  # fmt: skip
    norm = {'type': 'GN', 'num_groups': 32, 'requires_grad': True}
    assert head.get('norm_cfg', norm) == (norm if 'g' in row.head else None)
    assert head.get('centerness', True) is ('c' in row.head)
    assert head.get('scale_per_level', True) is ('s' in row.head)
    assert head.get('regression', 'box') == row.regression
    assert head.get('dcn_on_last_conv', False) is (row.dcn != '-')
    assert head.loss_bbox.to_dict() == LOSSES[row.loss]
    assert head.get('reg_decoded_bbox', True) is (row.loss == 'giou')
    assert head.loss_cls.to_dict() == {
        'type': 'FocalLoss', 'use_sigmoid': True, 'gamma': 2.0, 'alpha': 0.25, 'loss_weight': 1.0
    }  # fmt: skip
    assert list(head.bbox_coder.target_stds) == [0.1, 0.1, 0.2, 0.2]
    assert cfg.model.test_cfg.to_dict() == {
        'nms_pre': 1000, 'min_bbox_size': 0, 'score_thr': 0.05, 'nms': {'type': 'nms', 'iou_threshold': 0.6},
        'max_per_img': 100, 'inference': 'official',
    }  # fmt: skip


def test_assigner(row, cfg):
    """All arguments, those the config leaves to the class too."""
    kind, arguments = assigner_of(row)
    said = cfg.model.train_cfg.assigner.to_dict()
    assert said.pop('type') == f'atss_ext.{kind}'
    parameters = inspect.signature(getattr(atss_ext.assigners, kind)).parameters.values()
    left = {item.name: item.default for item in parameters if item.default is not inspect.Parameter.empty}
    assert {**left, **said} == arguments


def test_schedule(row, cfg):
    epochs = int(row.epochs)
    assert cfg.train_cfg.max_epochs == epochs
    assert [dict(part) for part in cfg.param_scheduler] == [
        {'type': 'LinearLR', 'start_factor': 0.001, 'by_epoch': False, 'begin': 0, 'end': 500},
        {'type': 'MultiStepLR', 'by_epoch': True, 'begin': 0, 'end': epochs, 'gamma': 0.1,
         'milestones': MILESTONES[row.epochs]},
    ]  # fmt: skip
    assert cfg.optim_wrapper.optimizer.to_dict() == {
        'type': 'SGD', 'lr': 0.01, 'momentum': 0.9, 'weight_decay': 0.0001
    }  # fmt: skip
    assert cfg.auto_scale_lr.base_batch_size == 16


def test_training_images(row, cfg):
    data = cfg.train_dataloader.dataset
    assert (data.ann_file, data.data_prefix.img) == ('annotations/instances_train2017.json', 'train2017/')
    assert [step.type for step in data.pipeline if 'Resize' not in step.type] == [
        'LoadImageFromFile', 'LoadAnnotations', 'RandomFlip', 'PackDetInputs'
    ]  # fmt: skip
    resize = data.pipeline[2].to_dict()
    sides = sides_of(row)
    if len(sides) == 1:
        assert resize == {'type': 'Resize', 'scale': (1333, sides[0]), 'keep_ratio': True}
    else:
        scales = [(1333, side) for side in sides]
        assert (len(scales), scales[0], scales[-1]) == (161, (1333, 640), (1333, 800))
        assert resize == {'type': 'RandomChoiceResize', 'scales': scales, 'keep_ratio': True}


def test_tested_images(row, cfg):
    data, scored = cfg.test_dataloader.dataset, cfg.test_evaluator
    assert data.pipeline[1].to_dict() == {'type': 'Resize', 'scale': (1333, 800), 'keep_ratio': True}
    assert cfg.val_evaluator.ann_file == 'data/coco/annotations/instances_val2017.json'
    if row.on == 'val':
        assert (data.ann_file, data.data_prefix.img) == ('annotations/instances_val2017.json', 'val2017/')
        assert scored.to_dict() == cfg.val_evaluator.to_dict()
    else:
        file = 'annotations/image_info_test-dev2017.json'
        assert (data.ann_file, data.data_prefix.img) == (file, 'test2017/')
        assert (scored.type, scored.ann_file, scored.format_only, scored.outfile_prefix) == (
            'CocoMetric', f'data/coco/{file}', True, f'work_dirs/{row.config}/test-dev'
        )  # fmt: skip


def test_test_time_augmentation(row, cfg):
    if row.tta == '-':
        assert 'tta_model' not in cfg
        assert 'tta_pipeline' not in cfg
        return
    model = cfg.tta_model.to_dict()
    assert {key: model[key] for key in ('type', 'merge', 'vote_iou', 'score_thr', 'max_per_img')} == {
        'type': 'atss_ext.ATSSTTA', 'merge': 'soft-vote', 'vote_iou': 0.66, 'score_thr': 0.05,
        'max_per_img': 1000,
    }  # fmt: skip
    found = [(min(scale), max(scale), low, high) for scale, (low, high) in model['area_ranges']]
    assert tuple(found) == TTA
    sizes, flips = cfg.tta_pipeline[1].transforms[:2]
    assert [(min(size.scale), max(size.scale)) for size in sizes] == [(side, most) for side, most, *_ in TTA]
    assert {(size.type, size.keep_ratio) for size in sizes} == {('Resize', True)}
    assert sorted(flip.prob for flip in flips) == [0.0, 1.0]
