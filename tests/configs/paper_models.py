"""Models of configs/paper, narrow enough to try all of them: same depth and layers, fewer channels.

Narrowed: the backbone to an eighth of its channels (a ResNeXt keeps its groups, each one channel wide at
first), neck and head to 64 channels; no pretrained weights. All else is built as the config says.
"""

from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.cnn import Scale
from mmcv.ops import ModulatedDeformConv2dPack
from mmcv.transforms import Compose
from mmdet.models.detectors import SingleStageDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from paper_rows import BACKBONES, DCN_STAGES, TTA, Row, anchors_of, assigner_of, config_of
from torch import nn

import atss_ext
from atss_ext.registry import MODELS

SIDE = 128  # of the images; the coarsest level is one cell
LEVELS = 5
CHANNELS = 64
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Two images: small, middle and large gts, two of them in one place; the second has one.
BOXES = [
    [[8.0, 8, 40, 44], [20, 16, 124, 120], [60, 60, 100, 84], [64, 64, 80, 90]],
    [[2.0, 30, 90, 110]],
]
LABELS = [[0, 79, 17, 3], [42]]


def narrow(row: Row) -> Config:
    """A copy of the row's config with fewer channels and no weights to load."""
    cfg = deepcopy(config_of(row))
    cfg.model.backbone.update(init_cfg=None, base_channels=8, stem_channels=8)
    if 'base_width' in cfg.model.backbone:
        cfg.model.backbone.base_width = 1
    cfg.model.neck.update(in_channels=[32, 64, 128, 256], out_channels=CHANNELS)
    cfg.model.bbox_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    # Untrained scores are low; the rest of the test settings is the config's.
    cfg.model.test_cfg.update(score_thr=0.0)
    return cfg


def build(cfg: Config) -> SingleStageDetector:
    """The model, its head as a training begins with it."""
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    model.bbox_head.init_weights()
    return model


def batch() -> dict:
    """Two noisy images with literal gts."""
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for boxes, labels in zip(BOXES, LABELS, strict=True):
        inputs.append(torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8))
        shape = (SIDE, SIDE)
        sample = DetDataSample(metainfo={'img_shape': shape, 'ori_shape': shape, 'scale_factor': (1.0, 1.0)})
        sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes), labels=torch.tensor(labels))
        samples.append(sample)
    return {'inputs': inputs, 'data_samples': samples}


def check_layers(row: Row, model: SingleStageDetector) -> None:
    """What was built is what the literal table says."""
    kind, depth, groups, *_ = BACKBONES[row.net]
    assert type(model.backbone).__name__ == kind
    stages = [getattr(model.backbone, name) for name in model.backbone.res_layers]
    assert tuple(len(stage) for stage in stages) == BLOCKS[depth]
    for stage, deformable in zip(stages, DCN_STAGES[row.dcn], strict=True):
        for block in stage:
            assert isinstance(block.conv2, ModulatedDeformConv2dPack) is deformable
            assert block.conv2.groups == groups
    check_head(row, model.bbox_head)


def check_head(row: Row, head: nn.Module) -> None:
    """Towers, branches, scales, coder, assigner and anchors of the built head."""
    assert type(head) is atss_ext.models.ATSSHead
    for tower in (head.cls_convs, head.reg_convs):
        assert [isinstance(layer.conv, ModulatedDeformConv2dPack) for layer in tower] == [
            False, False, False, row.dcn != '-'
        ]  # fmt: skip
        norms = [module for module in tower.modules() if isinstance(module, nn.GroupNorm)]
        assert [norm.num_groups for norm in norms] == ([32] * 4 if 'g' in row.head else [])
    names = {name.split('.')[0] for name, _ in head.named_parameters()}
    assert ('atss_centerness' in names) is ('c' in row.head)
    scales = [module for module in head.modules() if isinstance(module, Scale)]
    assert len(scales) == (LEVELS if 's' in row.head else 0)
    coder = {'box': 'DeltaXYWHBBoxCoder', 'point': 'PointDistanceCoder'}[row.regression]
    assert type(head.bbox_coder).__name__ == coder
    kind, arguments = assigner_of(row)
    assert type(head.assigner) is getattr(atss_ext.assigners, kind)
    kept = {key: value for key, value in vars(head.assigner).items() if key in arguments}
    kept.pop('iou_calculator', None)  # built, where the table has its config
    assert kept == {key: arguments[key] for key in kept}
    check_anchors(row, head)


def check_anchors(row: Row, head: nn.Module) -> None:
    """Width and height of every anchor: base x stride x 2^(i / scales), area kept whatever the ratio."""
    base, scales, ratios = anchors_of(row)
    for stride, anchors in zip((8, 16, 32, 64, 128), head.prior_generator.base_anchors, strict=True):
        sides = [base * stride * 2 ** (step / scales) for step in range(scales)]
        expected = [[side / ratio**0.5, side * ratio**0.5] for ratio in ratios for side in sides]
        np.testing.assert_allclose((anchors[:, 2:] - anchors[:, :2]).numpy(), expected, rtol=1e-5)


def check_step(row: Row, model: SingleStageDetector) -> None:
    """One training step: finite losses, and a gradient in every parameter that trains."""
    model.train()
    data = model.data_preprocessor(batch(), training=True)
    losses = model(**data, mode='loss')
    expected = {'loss_cls', 'loss_bbox'} | ({'loss_centerness'} if 'c' in row.head else set())
    assert set(losses) == expected
    total, values = model.parse_losses(losses)
    assert all(torch.isfinite(value) and value > 0 for value in values.values())
    total.backward()
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    stem = ('backbone.conv1.', 'backbone.bn1.', 'backbone.layer1.')
    unlearned_norms = BACKBONES[row.net][-1] is False
    for name, value in model.named_parameters():
        norm = name.startswith('backbone.') and ('.bn' in name or '.downsample.1.' in name)
        assert (name in frozen) is (name.startswith(stem) or (norm and unlearned_norms)), name
        if name not in frozen:
            assert value.grad is not None, name
            assert torch.isfinite(value.grad).all(), name
            if 'scales' not in name:  # a level without positives leaves its scale alone
                assert value.grad.any(), name
    scales = [scale.scale.grad for scale in model.bbox_head.modules() if isinstance(scale, Scale)]
    assert not scales or any(grad.any() for grad in scales)


def check_detections(model: SingleStageDetector) -> None:
    """One prediction: 100 sound boxes an image."""
    model.eval()
    for sample in model.test_step(batch()):
        assert len(sample.pred_instances) == 100
        check_found(sample.pred_instances)


def check_views(cfg: Config, folder: Path) -> None:
    """One prediction by test-time augmentation, as tools/test.py --tta makes it, at a tenth of all sizes."""
    cv2.imwrite(str(folder / 'image.png'), batch()['inputs'][0].permute(1, 2, 0).numpy())
    cfg.tta_model.area_ranges = [
        (tuple(side // 10 for side in scale), (low / 10, high / 10))
        for scale, (low, high) in cfg.tta_model.area_ranges
    ]
    for size in cfg.tta_pipeline[1].transforms[0]:
        size.scale = tuple(side // 10 for side in size.scale)
    init_default_scope('mmdet')
    views = Compose(cfg.tta_pipeline)(
        {'img_path': str(folder / 'image.png'), 'img_id': 1, 'height': SIDE, 'width': SIDE, 'instances': []}
    )
    assert len(views['inputs']) == 2 * len(TTA)
    model = MODELS.build(dict(cfg.tta_model, module=cfg.model)).eval()
    model.module.bbox_head.init_weights()
    with torch.no_grad():
        (sample,) = model.test_step(pseudo_collate([views]))
    assert 100 < len(sample.pred_instances) <= 1000
    check_found(sample.pred_instances)


def check_found(found: InstanceData) -> None:
    """Finite boxes within the image, best first, of COCO's classes."""
    assert torch.isfinite(found.bboxes).all()
    assert (found.bboxes >= 0).all()
    assert (found.bboxes <= SIDE).all()
    assert (found.scores.diff() <= 0).all()
    assert ((found.scores > 0) & (found.scores <= 1)).all()
    assert ((found.labels >= 0) & (found.labels < 80)).all()
