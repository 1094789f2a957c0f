"""Regression from points and deformable towers, against mmdet's FCOSHead and literal distances."""

import pytest
import torch
from mmcv.ops import ModulatedDeformConv2dPack
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.structures import InstanceData
from test_atss_head import BATCH_SHAPE, STRIDES, features, gts, head_config, losses_and_gradients, metas
from test_head_options import build, renamed
from torch import nn

from atss_ext.assigners import BatchAssignment, PackedGts
from atss_ext.models.dense_heads.point_coder import PointDistanceCoder


def test_deformable_last_layer():
    """As mmdet's FCOSHead has it: the last layer of both towers, and no other."""
    ours = build(
        stacked_convs=2, dcn_on_last_conv=True, regression='point', **{'anchor_generator.center_offset': 0.5}
    )
    for tower in (ours.cls_convs, ours.reg_convs):
        assert [type(layer.conv) for layer in tower] == [nn.Conv2d, ModulatedDeformConv2dPack]
    theirs = fcos_head(stacked_convs=2, dcn_on_last_conv=True)
    ours.load_state_dict(renamed(theirs.state_dict()))
    for one, other in zip(ours(features(2)), theirs(features(2)), strict=True):
        torch.testing.assert_close(one, other)
    # As mmdet's: it begins as a plain convolution (the official code's offsets begin at random).
    layer = build(stacked_convs=2, dcn_on_last_conv=True).reg_convs[1]
    assert not layer.conv.conv_offset.weight.any()
    _, gradients, _ = losses_and_gradients(ours, (10, 3))
    assert all(gradient.abs().sum() > 0 for name, gradient in gradients.items() if 'conv_offset' in name)


def test_distances_in_strides():
    coder = PointDistanceCoder((8.0, 8.0))
    priors = torch.tensor([[-16.0, -8, 48, 56], [-56, -40, 72, 88]])  # centres (16, 24) of stride 8 and 16
    boxes = torch.tensor([[8.0, 8, 40, 64], [0, 0, 32, 40]])
    distances = torch.tensor([[1.0, 2, 3, 5], [0.5, 1.5, 1.5, 1]])
    assert torch.equal(coder.encode(priors, boxes), distances)
    assert torch.equal(coder.decode(priors, distances), boxes)
    cut = coder.decode(priors, distances, max_shape=(50, 30))
    assert cut.tolist() == [[8, 8, 30, 50], [0, 0, 30, 40]]
    assert torch.equal(PointDistanceCoder((8.0, 8.0), False).decode(priors, distances, (50, 30)), boxes)


@pytest.mark.parametrize(('base', 'ratio'), [(8, 1.0), (5, 1.0), (8, 0.25)])
def test_distances_are_in_strides_whatever_the_anchors(base, ratio):
    """Literally: a pixel distance over the stride of the level, at the centres of the anchors."""
    head = build(
        regression='point', **{'anchor_generator.octave_base_scale': base, 'anchor_generator.ratios': [ratio]}
    )
    generator = torch.Generator().manual_seed(3)
    for level, stride in zip(
        head.prior_generator.grid_priors([(3, 4)] * 5, device='cpu'), STRIDES, strict=True
    ):
        boxes = torch.rand(12, 4, generator=generator) * 100
        boxes[:, 2:] += boxes[:, :2]
        found = head.bbox_coder.encode(level, boxes)
        for prior, box, distances in zip(level.tolist(), boxes.tolist(), found.tolist(), strict=True):
            x, y = (prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2
            pixels = [x - box[0], y - box[1], box[2] - x, box[3] - y]
            assert distances == pytest.approx([d / stride for d in pixels], rel=1e-4, abs=1e-4)
        torch.testing.assert_close(head.bbox_coder.decode(level, found), boxes, rtol=1e-4, atol=1e-3)


def fcos_head(**overrides):
    config = head_config(**overrides)
    for key in ('anchor_generator', 'bbox_coder'):
        config.pop(key)
    head = MMDET_MODELS.build(
        {
            'type': 'mmdet.FCOSHead',
            **config,
            'strides': STRIDES,
            'norm_on_bbox': True,
            'centerness_on_reg': True,
        }
    )
    head.init_weights()
    nn.init.constant_(head.conv_reg.bias, 4)
    return head


class AssignedByFCOS:
    """Gives every prior the gt that mmdet's FCOSHead gives its location."""

    def __init__(self, head) -> None:
        self.head = head

    def assign_batch(self, priors, gts, *_args, **_kwargs) -> BatchAssignment:
        points = [(level[:, :2] + level[:, 2:]) / 2 for level in priors.levels]
        images = [
            InstanceData(bboxes=gts.boxes[a:b], labels=gts.labels[a:b])
            for a, b in zip(gts.offsets[:-1].tolist(), gts.offsets[1:].tolist(), strict=True)
        ]
        labels, distances = self.head.get_targets(points, images)
        rows = []
        for index, image in enumerate(images):
            row = []
            for p, label, d, stride in zip(points, labels, distances, STRIDES, strict=True):
                own = slice(index * len(p), (index + 1) * len(p))
                d = d[own] * stride
                if not len(image):
                    row.append(label[own] * 0)
                    continue
                boxes = torch.cat([p - d[:, :2], p + d[:, 2:]], 1)
                nearest = (boxes[:, None] - image.bboxes).abs().sum(2).argmin(1) + 1
                row.append(torch.where(label[own] < self.head.num_classes, nearest, 0))
            rows.append(torch.cat(row))
        assigned = torch.stack(rows)
        return BatchAssignment(assigned, assigned * 0.0)


def fcos_pair():
    theirs = fcos_head()
    ours = build(regression='point', **{'anchor_generator.center_offset': 0.5})
    ours.load_state_dict(renamed(theirs.state_dict()))
    ours.assigner = AssignedByFCOS(theirs)
    return ours, theirs


def whole_images(count: int) -> list[dict]:
    return [{**meta, 'img_shape': BATCH_SHAPE, 'pad_shape': BATCH_SHAPE} for meta in metas(count)]


def fcos_step(head, counts):
    feats = [f.requires_grad_() for f in features(len(counts))]
    losses = head.loss_by_feat(*head(feats), gts(counts), whole_images(len(counts)))
    losses = {name: sum(levels) if isinstance(levels, list) else levels for name, levels in losses.items()}
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in head.named_parameters()}, [f.grad for f in feats]


def test_fcos():
    """Its boxes are in strides there and in pixels here: IoU is the same up to its epsilon."""
    ours, theirs = fcos_pair()
    mine, expected = fcos_step(ours, (10, 8)), fcos_step(theirs, (10, 8))
    assert mine[0].keys() == expected[0].keys()
    for name, loss in expected[0].items():
        torch.testing.assert_close(mine[0][name], loss, rtol=1e-5, atol=0)
        assert loss > 0.1
    for name, gradient in renamed(expected[1]).items():
        torch.testing.assert_close(mine[1][name], gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mine[2], expected[2], rtol=1e-4, atol=1e-6)


def test_an_image_without_positives_counts_as_one_here_and_as_none_in_fcos():
    ours, theirs = fcos_pair()
    mine, expected = fcos_step(ours, (10, 0))[0], fcos_step(theirs, (10, 0))[0]
    packed = PackedGts.from_instances(gts((10, 0)))
    shapes = tuple(tuple(level.shape[2:]) for level in features(1))
    targets = ours.get_targets(ours.pyramid_priors(shapes, torch.device('cpu')), packed)
    positives = int(targets.positive.sum())
    assert positives > 10
    for name in ('loss_cls', 'loss_centerness'):
        torch.testing.assert_close(mine[name] * (positives + 1) / positives, expected[name])
    torch.testing.assert_close(mine['loss_bbox'], expected['loss_bbox'], rtol=1e-5, atol=0)


def test_fcos_detections():
    ours, theirs = (head.eval() for head in fcos_pair())
    with torch.no_grad():
        mine = ours.predict_by_feat(*ours(features(4)), batch_img_metas=metas(4))
        expected = theirs.predict_by_feat(*theirs(features(4)), batch_img_metas=metas(4))
    assert sum(map(len, expected)) > 20
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one.bboxes, other.bboxes)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)


def test_points_begin_at_their_anchors_and_a_second_initialisation_leaves_them():
    """Anchors of 8 strides begin at 4, as in the official code; a wide one of 4 x 2 at (2, 1)."""
    head = build(regression='point')
    assert torch.equal(head.atss_reg.bias, torch.full((4,), 4.0))
    head.bbox_coder.sides = (4.0, 2.0)
    head._is_init = False
    head.init_weights()
    assert torch.equal(head.atss_reg.bias, torch.tensor([2.0, 1.0, 2.0, 1.0]))
    assert torch.equal(build().atss_reg.bias, torch.zeros(4))
    nn.init.constant_(head.atss_reg.bias, 2)
    head.init_weights()
    assert torch.equal(head.atss_reg.bias, torch.full((4,), 2.0))


def test_no_distance_is_negative():
    head = build(regression='point')
    nn.init.constant_(head.atss_reg.bias, -4)
    assert all(not level.any() for level in head(features(1))[1])
    box = build()
    nn.init.constant_(box.atss_reg.bias, -4)
    assert all(level.max() < 0 for level in box(features(1))[1])
