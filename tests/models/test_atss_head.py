"""The batched head against mmdet's ATSSHead with equal weights."""

import copy

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from atss_ext.assigners import PackedGts
from atss_ext.models.dense_heads import ATSSHead
from atss_ext.models.dense_heads.prior_validity import valid_priors
from atss_ext.registry import MODELS

STRIDES = [8, 16, 32, 64, 128]
BATCH_SHAPE = (160, 224)
FEATURE_SHAPES = tuple((-(-160 // s), -(-224 // s)) for s in STRIDES)
IMAGE_SHAPES = [(160, 224), (100, 224), (160, 90), (33, 47)]


def head_config(**overrides) -> dict:
    config = {
        'num_classes': 7,
        'in_channels': 16,
        'feat_channels': 16,
        'stacked_convs': 1,
        'norm_cfg': {'type': 'GN', 'num_groups': 4, 'requires_grad': True},
        'anchor_generator': {
            'type': 'AnchorGenerator',
            'ratios': [1.0],
            'octave_base_scale': 8,
            'scales_per_octave': 1,
            'strides': STRIDES,
        },
        'bbox_coder': {
            'type': 'DeltaXYWHBBoxCoder',
            'target_means': [0.0, 0.0, 0.0, 0.0],
            'target_stds': [0.1, 0.1, 0.2, 0.2],
        },
        'loss_cls': {
            'type': 'FocalLoss',
            'use_sigmoid': True,
            'gamma': 2.0,
            'alpha': 0.25,
            'loss_weight': 1.0,
        },
        'loss_bbox': {'type': 'GIoULoss', 'loss_weight': 2.0},
        'loss_centerness': {'type': 'CrossEntropyLoss', 'use_sigmoid': True, 'loss_weight': 0.7},
        'train_cfg': {
            'assigner': {'type': 'mmdet.ATSSAssigner', 'topk': 9},
            'allowed_border': -1,
            'pos_weight': -1,
            'debug': False,
        },
        'test_cfg': {
            'nms_pre': 1000,
            'min_bbox_size': 0,
            'score_thr': 0.01,
            'nms': {'type': 'nms', 'iou_threshold': 0.6},
            'max_per_img': 100,
        },
    }
    config = ConfigDict(copy.deepcopy(config))
    _merge(config, overrides)
    return config


def _merge(config, overrides) -> None:
    for key, value in overrides.items():
        *path, last = key.split('.')
        node = config
        for part in path:
            node = node[part]
        node[last] = value


def pair_of_heads(assigner=None, **overrides):
    """Ours with our assigner and mmdet's with mmdet's, on the same weights."""
    theirs = MMDET_MODELS.build({'type': 'mmdet.ATSSHead', **head_config(**overrides)})
    theirs.init_weights()
    assigner = assigner or {'type': 'atss_ext.ATSSAssigner', 'topk': 9, 'candidates': 'per_level'}
    ours = MODELS.build(
        {'type': 'atss_ext.ATSSHead', **head_config(**overrides, **{'train_cfg.assigner': assigner})}
    )
    assert type(ours) is ATSSHead  # whatever default scope an earlier test left behind
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def features(batch: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(-(-BATCH_SHAPE[0] // s), -(-BATCH_SHAPE[1] // s)) for s in STRIDES]
    return [torch.randn(batch, 16, h, w, generator=generator) for h, w in shapes]


def metas(batch: int) -> list[dict]:
    sizes = IMAGE_SHAPES[:batch]
    pad = [tuple(-(-side // 32) * 32 for side in size) for size in sizes]
    return [
        {'img_shape': s, 'pad_shape': p, 'scale_factor': (1.0, 1.0), 'ori_shape': s}
        for s, p in zip(sizes, pad, strict=True)
    ]


def gts(counts) -> list[InstanceData]:
    generator = torch.Generator().manual_seed(2)
    images = []
    for count, (height, width) in zip(counts, IMAGE_SHAPES, strict=False):
        centers = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
        sizes = torch.exp(torch.rand(count, 2, generator=generator) * 4.5)
        boxes = torch.cat([centers - sizes / 2, centers + sizes / 2], 1)
        images.append(InstanceData(bboxes=boxes, labels=torch.randint(0, 7, (count,), generator=generator)))
    return images


def losses_and_gradients(head, counts, ignored=None):
    feats = [f.requires_grad_() for f in features(len(counts))]
    head.zero_grad()
    losses = head.loss_by_feat(*head(feats), gts(counts), metas(len(counts)), ignored)
    sum(sum(values) for values in losses.values()).backward()
    gradients = {name: p.grad for name, p in head.named_parameters()}
    return losses, gradients, [f.grad for f in feats]


def assert_same_step(ours, theirs, counts, ignored=None) -> None:
    mine, expected = (losses_and_gradients(head, counts, ignored) for head in (ours, theirs))
    assert mine[0].keys() == expected[0].keys()
    for name, levels in expected[0].items():
        torch.testing.assert_close(
            mine[0][name], levels, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f'{n}: {m}'
        )
    assert mine[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(mine[1][name], gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mine[2], expected[2], rtol=1e-4, atol=1e-7)
    assert all(gradient.abs().sum() > 0 for gradient in (mine[1]['atss_cls.weight'],))


@pytest.mark.parametrize('counts', [(10, 3, 25, 1), (0, 12, 0, 0), (5,), (60, 60)])
def test_losses_and_gradients_equal_mmdet(counts):
    assert_same_step(*pair_of_heads(), counts)


def test_no_gt_at_all_still_reaches_every_weight():
    ours, theirs = pair_of_heads()
    assert_same_step(ours, theirs, (0, 0, 0))
    assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.parametrize(
    'overrides',
    [
        {'train_cfg.allowed_border': 0, 'anchor_generator.octave_base_scale': 2},
        {'train_cfg.pos_weight': 2.5},
        {'anchor_generator.ratios': [0.5, 1.0, 2.0]},
        {'anchor_generator.center_offset': 0.5, 'anchor_generator.octave_base_scale': 6},
        {'loss_bbox': {'type': 'CIoULoss', 'loss_weight': 1.3}},
        {
            'loss_cls': {
                'type': 'FocalLoss',
                'use_sigmoid': True,
                'gamma': 1.0,
                'alpha': 0.4,
                'loss_weight': 3.0,
            }
        },
    ],
    ids=lambda overrides: next(iter(overrides)),
)
def test_settings_equal_mmdet(overrides):
    assigner = None
    if 'anchor_generator.ratios' in overrides:
        # Anchors of one location tie for the k-th place: hand both heads the same assigner.
        assigner = {'type': 'mmdet.ATSSAssigner', 'topk': 9}
    assert_same_step(*pair_of_heads(assigner, **overrides), (10, 3, 25, 1))


@pytest.mark.parametrize(
    'assigner',
    [
        {'type': 'mmdet.ATSSAssigner', 'topk': 9},
        {
            'type': 'mmdet.MaxIoUAssigner',
            'pos_iou_thr': 0.5,
            'neg_iou_thr': 0.4,
            'min_pos_iou': 0,
            'ignore_iof_thr': -1,
        },
    ],
    ids=lambda assigner: assigner['type'],
)
def test_stock_assigners_fit_our_head(assigner):
    ours, _ = pair_of_heads(assigner)
    pyramid = ours.pyramid_priors(FEATURE_SHAPES, torch.device('cpu'))
    images = gts((10, 0, 25))
    targets = ours.get_targets(pyramid, PackedGts.from_instances(images))
    for image, instances in enumerate(images):
        arguments = [InstanceData(priors=pyramid.boxes), instances]
        if 'ATSS' in assigner['type']:
            arguments.insert(1, pyramid.level_sizes)
        expected = ours.assigner.assign(*arguments)
        labels = torch.where(expected.gt_inds > 0, expected.labels, 7)
        assert torch.equal(targets.labels[image], labels)
        assert torch.equal(targets.weights[image], (expected.gt_inds >= 0).float())
    losses, gradients, _ = losses_and_gradients(ours, (10, 0, 25))
    assert all(torch.isfinite(level) for levels in losses.values() for level in levels)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_our_assigner_fits_mmdets_head():
    _, theirs = pair_of_heads()
    ours_in_theirs = MMDET_MODELS.build(
        {
            'type': 'mmdet.ATSSHead',
            **head_config(**{'train_cfg.assigner': {'type': 'atss_ext.ATSSAssigner', 'topk': 9}}),
        }
    )
    ours_in_theirs.load_state_dict(theirs.state_dict())
    assert_same_step(ours_in_theirs, theirs, (10, 3, 25, 1))


def test_ignore_regions_equal_mmdet():
    thr = {'topk': 9, 'ignore_iof_thr': 0.4}
    ours, theirs = pair_of_heads({'type': 'atss_ext.ATSSAssigner', **thr})
    theirs.assigner.ignore_iof_thr = 0.4
    ignored = [
        InstanceData(bboxes=boxes) for boxes in torch.tensor([[[0.0, 0, 120, 120]], [[50.0, 10, 90, 60]]])
    ]
    assert_same_step(ours, theirs, (8, 6), ignored)
    with_regions = losses_and_gradients(ours, (8, 6), ignored)[0]['loss_cls'][0]
    assert with_regions != losses_and_gradients(ours, (8, 6))[0]['loss_cls'][0]


def test_images_without_ignored_instances():
    """Samples that carry none reach mmdet's head as None each; ours must not stumble over them."""
    assert_same_step(*pair_of_heads(), (8, 6), [None, None])


def test_predictions_equal_mmdet():
    ours, theirs = pair_of_heads()
    for head in (ours, theirs):
        head.eval()
    with torch.no_grad():
        mine = ours.predict_by_feat(*ours(features(4)), batch_img_metas=metas(4))
        expected = theirs.predict_by_feat(*theirs(features(4)), batch_img_metas=metas(4))
    assert sum(len(result) for result in expected) > 50
    for result, other in zip(mine, expected, strict=True):
        assert torch.equal(result.bboxes, other.bboxes)
        assert torch.equal(result.scores, other.scores)
        assert torch.equal(result.labels, other.labels)


class ReadsBack(TorchDispatchMode):
    """Records every op that would make the host wait for a device."""

    SYNCHRONISING = ('_local_scalar_dense', 'nonzero', 'masked_select', 'equal', 'is_nonzero', 'unique')

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split('.')[0]
        boolean_index = name == 'index' and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in self.SYNCHRONISING or boolean_index:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_target_making_reads_nothing_back():
    ours, theirs = pair_of_heads()
    pyramid = ours.pyramid_priors(FEATURE_SHAPES, torch.device('cpu'))
    packed = PackedGts.from_instances(gts((10, 3, 25, 0)))
    with ReadsBack() as ours_mode:
        valid = valid_priors(ours.prior_generator, pyramid.boxes, FEATURE_SHAPES, metas(4), -1)
        ours.get_targets(pyramid, packed, valid)
    assert ours_mode.found == []
    outputs = theirs(features(4))
    with ReadsBack() as their_mode:
        theirs.loss_by_feat(*outputs, gts((10, 3, 25, 0)), metas(4))
    assert len(their_mode.found) > 20  # the recorder does see what it looks for


def test_number_of_ops_does_not_grow_with_images_or_gts():
    ours, _ = pair_of_heads()
    pyramid = ours.pyramid_priors(FEATURE_SHAPES, torch.device('cpu'))

    def count(counts) -> int:
        packed = PackedGts.from_instances(gts(counts))

        class Count(TorchDispatchMode):
            total = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                Count.total += 1
                return func(*args, **(kwargs or {}))

        with Count():
            ours.get_targets(pyramid, packed)
        return Count.total

    assert count((3,)) == count((3, 40, 0, 100))


def test_priors_are_cached_per_feature_shape():
    ours, _ = pair_of_heads()
    first = ours.pyramid_priors(FEATURE_SHAPES, torch.device('cpu'))
    assert ours.pyramid_priors(FEATURE_SHAPES, torch.device('cpu')) is first
    other = ours.pyramid_priors(((4, 4), (2, 2), (1, 1), (1, 1), (1, 1)), torch.device('cpu'))
    assert other.level_sizes == [16, 4, 1, 1, 1]
    expected = ours.prior_generator.grid_priors(list(FEATURE_SHAPES), device='cpu')
    assert all(torch.equal(a, b) for a, b in zip(first.levels, expected, strict=True))
    assert [(level.height, level.width) for level in first.grid] == list(FEATURE_SHAPES)
    assert [level.stride for level in first.grid[:3]] == [(8, 8), (16, 16), (32, 32)]


def test_encoded_regression_is_refused():
    with pytest.raises(ValueError, match='reg_decoded_bbox=False'):
        MODELS.build({'type': 'atss_ext.ATSSHead', **head_config(), 'reg_decoded_bbox': False})
