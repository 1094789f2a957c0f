"""Heads that host the assigners that go by predictions: mmdet's stock ones, and ours."""

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.models.dense_heads import ATSSHead
from atss_ext.registry import MODELS

STRIDES = (8, 16, 32)
SIZE = (128, 160)
COUNTS = (6, 0, 11)
CLASSES = 7
QUALITY = {'type': 'mmdet.QualityFocalLoss', 'use_sigmoid': True, 'beta': 2.0, 'loss_weight': 1.0}
ANCHORS = {
    'type': 'mmdet.AnchorGenerator',
    'ratios': [1.0],
    'octave_base_scale': 8,
    'scales_per_octave': 1,
    'strides': list(STRIDES),
}
CODER = {
    'type': 'mmdet.DeltaXYWHBBoxCoder',
    'target_means': [0.0] * 4,
    'target_stds': [0.1, 0.1, 0.2, 0.2],
}
GIOU = {'type': 'mmdet.GIoULoss', 'loss_weight': 2.0}
NORM = {'type': 'GN', 'num_groups': 4, 'requires_grad': True}
COMMON = {'num_classes': CLASSES, 'in_channels': 16, 'feat_channels': 16, 'stacked_convs': 1}
TRAIN = {'allowed_border': -1, 'pos_weight': -1, 'debug': False}


def stock_head(name: str, assigner: dict) -> torch.nn.Module:
    """The head of mmdet that was written for the assigner of that name."""
    if name == 'TaskAlignedAssigner':
        config = {
            'type': 'mmdet.TOODHead',
            'anchor_generator': ANCHORS,
            'bbox_coder': CODER,
            'initial_loss_cls': {'type': 'mmdet.FocalLoss', 'use_sigmoid': True, 'activated': True},
            'loss_cls': {**QUALITY, 'activated': True},
            'loss_bbox': GIOU,
            'norm_cfg': NORM,
            'train_cfg': {
                'initial_epoch': 0,
                'initial_assigner': {'type': 'mmdet.ATSSAssigner', 'topk': 9},
                'alpha': 1,
                'beta': 6,
                **TRAIN,
            },
        }
    elif name == 'SimOTAAssigner':
        config = {'type': 'mmdet.YOLOXHead', 'strides': STRIDES, 'norm_cfg': NORM, 'train_cfg': {}}
    else:
        config = {
            'type': 'mmdet.RTMDetHead',
            'anchor_generator': {'type': 'mmdet.MlvlPointGenerator', 'offset': 0, 'strides': list(STRIDES)},
            'bbox_coder': {'type': 'mmdet.DistancePointBBoxCoder'},
            'loss_cls': QUALITY,
            'loss_bbox': GIOU,
            'with_objectness': False,
            'norm_cfg': NORM,
            'train_cfg': dict(TRAIN),
        }
    config['train_cfg']['assigner'] = assigner
    return MMDET_MODELS.build(ConfigDict({**COMMON, **config}))


def our_head(assigner: dict) -> ATSSHead:
    config = {
        'type': 'atss_ext.ATSSHead',
        'anchor_generator': ANCHORS,
        'bbox_coder': CODER,
        'norm_cfg': NORM,
        'loss_cls': {'type': 'mmdet.FocalLoss', 'use_sigmoid': True, 'gamma': 2.0, 'alpha': 0.25},
        'loss_bbox': GIOU,
        'loss_centerness': {'type': 'mmdet.CrossEntropyLoss', 'use_sigmoid': True, 'loss_weight': 1.0},
        'train_cfg': {'assigner': assigner, **TRAIN},
    }
    return MODELS.build(ConfigDict({**COMMON, **config}))


def step(head: torch.nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of a batch."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(COUNTS), 16)
    features = [torch.randn(*shape, SIZE[0] // s, SIZE[1] // s, generator=generator) for s in STRIDES]
    metas = [{'img_shape': SIZE, 'pad_shape': SIZE, 'scale_factor': (1.0, 1.0)} for _ in COUNTS]
    gts = []
    for count in COUNTS:
        centers = torch.rand(count, 2, generator=generator) * torch.tensor([SIZE[1], SIZE[0]])
        sizes = 8 * 2 ** (torch.rand(count, 2, generator=generator) * 3)
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        gts.append(
            InstanceData(bboxes=torch.cat([centers - sizes / 2, centers + sizes / 2], 1), labels=labels)
        )
    MessageHub.get_current_instance().update_info('epoch', 0)  # TOOD's head asks
    losses = head.loss_by_feat(*head(features), gts, metas)
    sums = {name: sum(values) if isinstance(values, list) else values for name, values in losses.items()}
    sum(sums.values()).sum().backward()
    return sums, {name: p.grad for name, p in head.named_parameters() if p.grad is not None}


def assert_same_step(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    ours.load_state_dict(theirs.state_dict())
    mine, expected = step(ours), step(theirs)
    for one, other in zip(mine, expected, strict=True):
        assert one.keys() == other.keys()
        for name, values in other.items():
            assert values.isfinite().all()
            torch.testing.assert_close(one[name], values, rtol=1e-5, atol=1e-6)
    assert all(float(loss.detach()) > 0 for loss in expected[0].values())


def assert_same_losses(name: str, arguments: dict) -> None:
    """mmdet's head with our assigner and with mmdet's; a loss of boxes above 0 means that positives exist."""
    torch.manual_seed(0)
    theirs = stock_head(name, {'type': f'mmdet.{name}', **arguments})
    theirs.init_weights()
    assert_same_step(stock_head(name, {'type': f'atss_ext.{name}', **arguments}), theirs)


def assert_same_losses_in_our_head(name: str, arguments: dict) -> None:
    torch.manual_seed(0)
    theirs = our_head({'type': f'mmdet.{name}', **arguments})
    theirs.init_weights()
    assert_same_step(our_head({'type': f'atss_ext.{name}', **arguments}), theirs)
