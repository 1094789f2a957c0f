"""The rows of the ATSS paper's tables, each as a config small enough for a CPU."""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from atss_ext.cli.options import read_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# Anchors of the small pyramid are half as many strides large as the paper's; so are its ranges of sizes.
SIZE_SCALE = 0.5
# FCOS's; the last has no end, which 1e8 stands for: a config that is written out cannot say infinity.
RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512))
NO_END = 1e8
DEFAULTS = {
    'regression': 'box', 'centerness': True, 'scale_per_level': True, 'dcn_on_last_conv': False,
    'reg_decoded_bbox': True,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        config: name of its config in ``configs/paper/tableN``.
        label: what the paper calls it.
        ap: the paper's AP on COCO minival, in percent.
    """

    config: str
    label: str
    ap: float

    @property
    def path(self) -> Path:
        """Of the config."""
        return CONFIGS / 'paper' / self.config.split('_')[0] / f'{self.config}.py'


def _rows(table: int, *cells: tuple[str, str, float]) -> list[Row]:
    return [Row(f'table{table}_{name}', label, ap) for name, label, ap in cells]


K = ((3, 38.0), (5, 38.8), (7, 39.1), (9, 39.3), (11, 39.1), (13, 39.0), (15, 39.1), (17, 39.2), (19, 38.9))
# Table 8 compares large backbones on test-dev, which says nothing at this scale.
TABLES: dict[int, list[Row]] = {
    1: _rows(
        1,
        ('retinanet', 'RetinaNet (#A=1)', 32.5),
        ('retinanet_gn', '+ group norm', 33.4),
        ('retinanet_giou', '+ GIoU', 34.9),
        ('retinanet_in-gt', '+ positives in their gt', 35.3),
        ('retinanet_centerness', '+ centerness', 36.8),
        ('retinanet_scalar', '+ scale a level', 37.0),
        ('fcos', 'FCOS', 37.8),
    ),
    2: _rows(
        2,
        ('iou-box', 'IoU, from the box', 37.0),
        ('iou-point', 'IoU, from the point', 36.9),
        ('ssc-box', 'space and scale, from the box', 37.8),
        ('ssc-point', 'space and scale, from the point', 37.8),
    ),
    3: _rows(
        3,
        ('retinanet', 'RetinaNet (#A=1)', 37.0),
        ('retinanet_atss', 'RetinaNet (#A=1) + ATSS', 39.3),
        ('fcos', 'FCOS', 37.8),
        ('fcos_center-sampling', 'FCOS + center sampling', 38.6),
        ('fcos_atss', 'FCOS + ATSS', 39.2),
    ),
    4: _rows(4, *((f'k{k}', f'k = {k}', ap) for k, ap in K)),
    5: _rows(
        5,
        *((f'{n}s', f'{n}S', ap) for n, ap in ((5, 39.0), (6, 39.2), (7, 39.3), (8, 39.3), (9, 38.9))),
    ),
    6: _rows(
        6,
        ('1-4', '1:4', 39.1),
        ('1-2', '1:2', 39.0),
        ('1-1', '1:1', 39.3),
        ('2-1', '2:1', 39.3),
        ('4-1', '4:1', 39.1),
    ),
    7: _rows(
        7,
        ('retinanet', 'RetinaNet (#A=9)', 36.3),
        ('improved', '+ improvements', 38.4),
        ('atss_3x3', '+ ATSS, 3 scales x 3 ratios', 39.2),
        ('atss_3x1', '+ ATSS, 3 scales x 1 ratio', 39.3),
        ('atss_1x3', '+ ATSS, 1 scale x 3 ratios', 39.2),
        ('atss_1x1', '+ ATSS, 1 scale x 1 ratio', 39.3),
    ),
}


@dataclass(frozen=True)
class Scale:
    """How small the trainings are.

    Attributes:
        size: longest side of the images, pixels.
        epochs: of every training.
        width: channels of the backbone's first stage; neck and head have twice as many.
        batch_size: images a step.
    """

    size: int = 128
    epochs: int = 12
    width: int = 16
    batch_size: int = 8


def row_config(
    row: Row, scale: Scale, splits: dict[str, tuple[str, str]], classes: tuple[str, ...]
) -> Config:
    """A row's head and assigner from its own config, on the small model, data, inference and schedule.

    Args:
        row: of a table.
        scale: of the training.
        splits: annotation file and image folder of ``train`` and ``val``.
        classes: of the data.
    """
    cfg = _read(CONFIGS / 'demo' / 'atss_r18_shapes.py')
    paper = _read(row.path).model.to_dict()
    width = scale.width
    cfg.model.backbone.update(base_channels=width, stem_channels=width)
    cfg.model.neck.update(in_channels=[width * 2**stage for stage in range(4)], out_channels=2 * width)
    strides = cfg.model.bbox_head.anchor_generator.strides
    head = small_head(paper['bbox_head'], strides, 2 * width, len(classes))
    cfg.model.bbox_head = head
    cfg.model.train_cfg = small_training(paper['train_cfg'], len(strides))
    _set_data(cfg, scale, splits, classes)
    _set_schedule(cfg, scale.epochs)
    return cfg


@functools.cache
def _parse(path: Path) -> Config:
    return read_config(str(path))


def _read(path: Path) -> Config:
    """A copy: a config takes long to read, and is changed."""
    return copy.deepcopy(_parse(path))


def small_head(head: dict[str, Any], strides: list[int], channels: int, classes: int) -> dict[str, Any]:
    """A head of the paper with fewer channels and convolutions, on another pyramid."""
    anchors = {**head['anchor_generator'], 'strides': list(strides)}
    anchors['octave_base_scale'] = anchors['octave_base_scale'] * SIZE_SCALE
    sizes = {'num_classes': classes, 'in_channels': channels, 'feat_channels': channels, 'stacked_convs': 2}
    small = {**head, **sizes, 'anchor_generator': anchors}
    # Said or not, they are the same: rows of the same content, of whatever table, are to be equal.
    small = {key: value for key, value in small.items() if key not in DEFAULTS or value != DEFAULTS[key]}
    norm = head.get('norm_cfg', {'type': 'GN', 'num_groups': 32, 'requires_grad': True})
    if norm:  # four channels a group, half of the paper's
        small['norm_cfg'] = {**norm, 'num_groups': max(1, channels // 4)}
    return small


def small_training(train_cfg: dict[str, Any], levels: int) -> dict[str, Any]:
    """A ``train_cfg`` of the paper whose ranges of sizes are those of the small pyramid."""
    assigner = dict(train_cfg['assigner'])
    if assigner['type'] == 'atss_ext.SpatialScaleAssigner':
        ranges = [list(pair) for pair in assigner.get('regress_ranges', RANGES)[:levels]]
        ranges = [[low if low < 0 else low * SIZE_SCALE, high * SIZE_SCALE] for low, high in ranges]
        ranges[-1][1] = NO_END
        assigner['regress_ranges'] = ranges
    return {**train_cfg, 'assigner': assigner}


def _set_data(
    cfg: Config, scale: Scale, splits: dict[str, tuple[str, str]], classes: tuple[str, ...]
) -> None:
    resize = {'type': 'Resize', 'scale': (scale.size, scale.size), 'keep_ratio': True}
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    start = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True}, resize]
    pack = {'type': 'PackDetInputs', 'meta_keys': (*keys, 'flip', 'flip_direction')}
    pipelines = {
        'train': [*start, {'type': 'RandomFlip', 'prob': 0.5}, pack],
        'val': [*start, {'type': 'PackDetInputs', 'meta_keys': keys}],
    }
    for split, (annotations, images) in splits.items():
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=scale.batch_size, num_workers=0, persistent_workers=False)
        loader.dataset = {
            'type': 'CocoDataset',
            'ann_file': annotations,
            'data_prefix': {'img': images},
            'metainfo': {'classes': list(classes)},
            'filter_cfg': {'filter_empty_gt': False},
            'test_mode': split == 'val',
            'pipeline': pipelines[split],
        }
    cfg.val_evaluator.ann_file = splits['val'][0]
    for key in (
        'test_dataloader',
        'test_evaluator',
        'test_cfg',
        'data_root',
        'train_pipeline',
        'test_pipeline',
    ):
        cfg.pop(key, None)


def _set_schedule(cfg: Config, epochs: int) -> None:
    # Scored once, by the run itself, when it is trained.
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs + 1)
    cfg.param_scheduler[1].update(end=epochs, T_max=epochs)
    cfg.default_hooks.checkpoint = {'type': 'CheckpointHook', 'interval': epochs, 'save_optimizer': False}
    cfg.pop('max_epochs', None)
