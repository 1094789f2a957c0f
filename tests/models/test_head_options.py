"""Options of the head against mmdet's RetinaHead and ATSSHead; what does not go together."""

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from test_atss_head import (
    STRIDES,
    ReadsBack,
    features,
    gts,
    head_config,
    losses_and_gradients,
    metas,
    pair_of_heads,
)
from torch import nn

from atss_ext.models.dense_heads import atss_head
from atss_ext.registry import MODELS

MAX_IOU = {'type': 'mmdet.MaxIoUAssigner', 'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, 'min_pos_iou': 0}
SMOOTH_L1 = {'type': 'SmoothL1Loss', 'beta': 0.11, 'loss_weight': 0.25}
GIOU = {'type': 'GIoULoss', 'loss_weight': 2.0}
RETINA = {'centerness': False, 'scale_per_level': False}
NAMES = {'retina_cls': 'atss_cls', 'retina_reg': 'atss_reg', 'conv_cls': 'atss_cls', 'conv_reg': 'atss_reg',
         'conv_centerness': 'atss_centerness'}  # fmt: skip


def build(**overrides):
    head = MODELS.build({'type': 'atss_ext.ATSSHead', **head_config(**overrides)})
    head.init_weights()
    return head


def renamed(state: dict) -> dict:
    """Another head's weights by the names of ours."""
    return {NAMES.get(key.split('.')[0], key.split('.')[0]) + key[len(key.split('.')[0]) :]: value
            for key, value in state.items()}  # fmt: skip


def retina_pair(**overrides):
    config = {'norm_cfg': None, 'loss_bbox': SMOOTH_L1, 'reg_decoded_bbox': False,
              'train_cfg.assigner': MAX_IOU, **overrides}  # fmt: skip
    ours = build(**config, **RETINA)
    theirs = head_config(**config)
    theirs.pop('loss_centerness')
    theirs = MMDET_MODELS.build({'type': 'mmdet.RetinaHead', **theirs})
    theirs.init_weights()
    ours.load_state_dict(renamed(theirs.state_dict()))
    return ours, theirs


def losses_of_retina(head, counts):
    """As losses_and_gradients: mmdet's head has no third output."""
    feats = [f.requires_grad_() for f in features(len(counts))]
    losses = head.loss_by_feat(*head(feats), gts(counts), metas(len(counts)))
    sum(sum(values) for values in losses.values()).backward()
    return losses, {name: p.grad for name, p in head.named_parameters()}, [f.grad for f in feats]


@pytest.mark.parametrize('counts', [(10, 3, 25, 1), (0, 12, 0, 0), (0, 0)])
@pytest.mark.parametrize(
    'overrides',
    [
        {},
        {'loss_bbox': {'type': 'L1Loss'}, 'norm_cfg': {'type': 'GN', 'num_groups': 4}},
        {'loss_bbox': GIOU, 'reg_decoded_bbox': True},
        {'anchor_generator.ratios': [0.5, 1.0, 2.0], 'anchor_generator.scales_per_octave': 3,
         'anchor_generator.octave_base_scale': 4},
    ],
    ids=['smooth-l1', 'l1-norm', 'giou', 'nine-anchors'],
)  # fmt: skip
def test_retinanet(overrides, counts):
    ours, theirs = retina_pair(**overrides)
    mine, expected = losses_and_gradients(ours, counts), losses_of_retina(theirs, counts)
    assert set(mine[0]) == {'loss_cls', 'loss_bbox'}
    for name, levels in expected[0].items():
        torch.testing.assert_close(mine[0][name], levels, rtol=1e-5, atol=1e-7)
    if sum(counts):
        assert sum(expected[0]['loss_bbox']) > 0.01
    for name, gradient in renamed(expected[1]).items():
        torch.testing.assert_close(mine[1][name], gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mine[2], expected[2], rtol=1e-4, atol=1e-7)


def test_retinanet_detections():
    ours, theirs = (head.eval() for head in retina_pair())
    with torch.no_grad():
        mine = ours.predict_by_feat(*ours(features(4)), batch_img_metas=metas(4))
        expected = theirs.predict_by_feat(*theirs(features(4)), batch_img_metas=metas(4))
    assert sum(map(len, expected)) > 20
    for one, other in zip(mine, expected, strict=True):
        assert torch.equal(one.bboxes, other.bboxes)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)


def test_losses_without_centerness_are_means_over_the_positives_of_all_ranks(monkeypatch):
    """mmdet's RetinaHead divides by its own rank's positives; here ranks with few do not count for more."""
    head, _ = retina_pair()
    alone = losses_and_gradients(head, (10, 3))[0]
    monkeypatch.setattr(atss_head, 'reduce_mean', lambda totals: totals * 4)
    among_others = losses_and_gradients(head, (10, 3))[0]
    for name, levels in alone.items():
        torch.testing.assert_close([value / 4 for value in levels], among_others[name])


def test_centerness_weighs_deltas_too():
    """Not in the paper: a loss of deltas, weighted by centerness and divided by its sum as that of boxes."""
    head = build(**{'loss_bbox': {'type': 'L1Loss'}, 'reg_decoded_bbox': False})
    images = gts((10, 3))
    with torch.no_grad():
        outputs = head(features(2))
        found = sum(head.loss_by_feat(*outputs, images, metas(2))['loss_bbox'])
        shapes = tuple(tuple(level.shape[2:]) for level in outputs[1])
        priors = head.pyramid_priors(shapes, torch.device('cpu'))
        targets = head.get_targets(priors, atss_head.PackedGts.from_instances(images), valid_of(head, shapes))
    deltas = torch.cat([level.permute(0, 2, 3, 1).reshape(2, -1, 4) for level in outputs[1]], 1)
    total, weights = 0.0, 0.0
    for image, prior in targets.positive.nonzero().tolist():
        wanted = head.bbox_coder.encode(priors.boxes[prior][None], targets.boxes[image, prior][None])
        weight = float(targets.centerness[image, prior])
        total += weight * float((deltas[image, prior] - wanted[0]).abs().sum())
        weights += weight
    assert found == pytest.approx(total / weights, rel=1e-5)


def valid_of(head, shapes):
    from atss_ext.models.dense_heads.prior_validity import valid_priors

    priors = head.pyramid_priors(shapes, torch.device('cpu'))
    return valid_priors(head.prior_generator, priors.boxes, shapes, metas(2), -1)


@pytest.mark.parametrize(
    ('overrides', 'missing', 'added'),
    [
        ({}, set(), set()),
        ({'centerness': False}, {'atss_centerness.weight', 'atss_centerness.bias'}, set()),
        ({'scale_per_level': False}, {f'scales.{level}.scale' for level in range(5)}, set()),
        (
            {'norm_cfg': None},
            {f'{tower}_convs.0.gn.{part}' for tower in ('cls', 'reg') for part in ('weight', 'bias')},
            {f'{tower}_convs.0.conv.bias' for tower in ('cls', 'reg')},
        ),
        ({'regression': 'point'}, set(), set()),
    ],
    ids=['default', 'centerness', 'scale', 'norm', 'point'],
)
def test_weights_are_mmdets_but_for_what_is_switched(overrides, missing, added):
    theirs = MMDET_MODELS.build({'type': 'mmdet.ATSSHead', **head_config()})
    ours = build(**overrides)
    expected = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    assert found.keys() == (expected.keys() - missing) | added
    assert all(shape == expected[name] for name, shape in found.items() if name not in added)


def test_centerness_alone_switched_off():
    """Classes and boxes are predicted as with it; its loss is gone, and boxes weigh the same."""
    full, _ = pair_of_heads()
    bare = build(centerness=False)
    bare.load_state_dict(full.state_dict(), strict=False)
    with_it, without = (losses_and_gradients(head, (10, 3))[0] for head in (full, bare))
    assert set(without) == {'loss_cls', 'loss_bbox'}
    torch.testing.assert_close(without['loss_cls'], with_it['loss_cls'])
    assert sum(without['loss_bbox']) > sum(with_it['loss_bbox'])  # what is off centre is harder
    assert bare(features(1))[2] is None


@pytest.mark.parametrize('bias', [-4, 3e38])
@pytest.mark.parametrize('regression', ['box', 'point'])
@pytest.mark.parametrize('loss', ['IoU', 'BoundedIoU', 'GIoU', 'DIoU', 'CIoU', 'EIoU', 'SIoU'])
def test_whatever_the_background_predicts_has_no_gradient(loss, regression, bias):
    """Boxes without an extent, which the ReLU makes of distances, and boxes that overflow."""
    head = build(regression=regression, loss_bbox={'type': f'{loss}Loss'})
    nn.init.constant_(head.atss_reg.bias, bias)
    _, gradients, inputs = losses_and_gradients(head, (0, 0))
    assert all(gradient.isfinite().all() for gradient in [*gradients.values(), *inputs])
    assert torch.equal(gradients['atss_reg.weight'], torch.zeros_like(head.atss_reg.weight))


@pytest.mark.parametrize(
    'overrides',
    [{}, {'regression': 'point'}, {**RETINA, 'loss_bbox': SMOOTH_L1, 'reg_decoded_bbox': False}],
    ids=['atss', 'point', 'retina'],
)
def test_losses_read_nothing_back(overrides, monkeypatch):
    # Read on a CPU alone: gts, to name a bad one, and labels in mmdet's focal loss (one_hot).
    monkeypatch.setattr('atss_ext.assigners.base.check_boxes', lambda *_: None)
    monkeypatch.setattr(atss_head, 'check_labels', lambda *_: None)
    head = build(**overrides, **{'train_cfg.assigner': {'type': 'atss_ext.ATSSAssigner', 'topk': 9}})
    outputs, images = head(features(4)), gts((10, 3, 25, 0))
    head.loss_by_feat(*outputs, images, metas(4))  # priors are made once
    del head.loss_cls
    head.loss_cls = lambda logits, *_args, avg_factor: logits.sum() / avg_factor
    with ReadsBack() as mode:
        losses = head.loss_by_feat(*outputs, images, metas(4))
    assert sum(losses['loss_bbox']) > 0
    assert mode.found == []


@pytest.mark.parametrize(
    ('overrides', 'sentence'),
    [
        ({'regression': 'corner'}, "regression must be 'box' or 'point', got 'corner'"),
        (
            {'regression': 'point', 'anchor_generator.ratios': [0.5, 1.0, 2.0]},
            "regression='point' measures boxes from one point a location, but the anchor generator puts 3 "
            "anchors there: set one of ratios and scales_per_octave=1, or regression='box'",
        ),
        (
            {'regression': 'point', 'loss_bbox': SMOOTH_L1, 'reg_decoded_bbox': False},
            "reg_decoded_bbox=False regresses deltas of anchor boxes, got regression='point': set "
            "regression='box', or remove reg_decoded_bbox and take an IoU loss such as GIoULoss",
        ),
        (
            {'reg_decoded_bbox': False},
            'loss_bbox GIoULoss compares boxes, but reg_decoded_bbox=False regresses deltas: remove that key '
            'from the config, or take SmoothL1Loss',
        ),
        (
            {'loss_bbox': SMOOTH_L1},
            'loss_bbox SmoothL1Loss compares deltas, but reg_decoded_bbox=True regresses boxes in pixels: '
            'set reg_decoded_bbox=False, or take an IoU loss such as GIoULoss',
        ),
        ({'test_cfg.inference': 'best'}, "test_cfg.inference must be 'mmdet' or 'official', got 'best'"),
        ({'centerness': 'no'}, "centerness must be True or False, got 'no'"),
        ({'scale_per_level': 0}, 'scale_per_level must be True or False, got 0'),
        ({'dcn_on_last_conv': 'false'}, "dcn_on_last_conv must be True or False, got 'false'"),
        ({'reg_decoded_bbox': None}, 'reg_decoded_bbox must be True or False, got None'),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(overrides, sentence):
    with pytest.raises(ValueError) as error:
        build(**overrides)
    assert sentence in str(error.value)


def test_points_of_uneven_levels_are_refused():
    generator = {
        'type': 'AnchorGenerator',
        'ratios': [1.0],
        'scales': [1.0],
        'base_sizes': [64, 128, 200, 512, 1024],
        'strides': STRIDES,
    }
    with pytest.raises(ValueError, match=r'must be the same number of strides on all levels, got .*6\.25'):
        build(regression='point', anchor_generator=generator)
