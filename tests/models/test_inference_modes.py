"""How detections are ranked and scored, against a literal transcription of both rules."""

import math

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from test_atss_head import head_config

from atss_ext.registry import MODELS

SHAPES = [(6, 7), (3, 4), (2, 2), (1, 1), (1, 1)]
META = {'img_shape': (40, 52), 'pad_shape': (64, 64), 'scale_factor': (0.5, 2.0), 'ori_shape': (20, 104)}
CLASSES = 3


def build(**overrides):
    config = head_config(
        num_classes=CLASSES,
        **{
            'test_cfg.score_thr': 0.3,
            'test_cfg.nms_pre': 20,
            'anchor_generator.octave_base_scale': 2,
            **overrides,
        },
    )
    return MODELS.build({'type': 'atss_ext.ATSSHead', **config}).eval()


def outputs(anchors: int = 1, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)

    def level(channels):
        return [torch.randn(2, anchors * channels, h, w, generator=generator) for h, w in SHAPES]

    return level(CLASSES), level(4), level(1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def transcription(head, image: int, levels, mode: str, score_thr: float = 0.3, nms_pre: int = 20):
    """Before NMS: (score, label, box), level by level and best first, in plain loops."""
    found = []
    priors_of = head.prior_generator.grid_priors(SHAPES, device='cpu')
    for logits, deltas, centerness, priors in zip(*levels, priors_of, strict=True):
        _, _, height, width = deltas.shape
        anchors = deltas.shape[1] // 4
        candidates = []
        for index, prior in enumerate(priors):
            y, x, a = index // anchors // width, index // anchors % width, index % anchors
            assert y < height
            center = sigmoid(float(centerness[image, a, y, x]))
            for label in range(CLASSES):
                probability = sigmoid(float(logits[image, a * CLASSES + label, y, x]))
                if probability <= score_thr:
                    continue
                product = probability * center
                rank, score = (product, math.sqrt(product)) if mode == 'official' else (probability, product)
                delta = deltas[image, 4 * a : 4 * a + 4, y, x]
                candidates.append((rank, score, label, decode(prior.tolist(), delta.tolist())))
        candidates.sort(key=lambda c: -c[0])
        found += [c[1:] for c in candidates[:nms_pre]]
    return found


def decode(prior, delta):
    """Deltas with deviations 0.1 and 0.2; cut at the image's border."""
    width, height = prior[2] - prior[0], prior[3] - prior[1]
    x = (prior[0] + prior[2]) / 2 + delta[0] * 0.1 * width
    y = (prior[1] + prior[3]) / 2 + delta[1] * 0.1 * height
    width, height = width * math.exp(delta[2] * 0.2), height * math.exp(delta[3] * 0.2)
    limit_y, limit_x = META['img_shape']
    return [min(max(x - width / 2, 0), limit_x), min(max(y - height / 2, 0), limit_y),
            min(max(x + width / 2, 0), limit_x), min(max(y + height / 2, 0), limit_y)]  # fmt: skip


def suppress(found, threshold: float, limit: int):
    """NMS within each class, best first."""
    kept = []
    for score, label, box in sorted(found, key=lambda f: -f[0]):
        if all(label != other or iou(box, b) <= threshold for _, other, b in kept):
            kept.append((score, label, box))
    return kept[:limit]


def iou(one, other) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (
        (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    )


def assert_same(results, expected, scale=(1, 1)) -> None:
    assert len(results) == len(expected)
    assert results.labels.tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(results.scores.numpy(), [score for score, _, _ in expected], rtol=1e-5)
    boxes = np.array([box for _, _, box in expected]) / np.array([*scale, *scale])
    np.testing.assert_allclose(results.bboxes.numpy(), boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('mode', ['mmdet', 'official'])
@pytest.mark.parametrize('anchors', [1, 2])
def test_candidates(mode, anchors):
    ratios = [1.0, 2.0][:anchors]
    head = build(**{'test_cfg.inference': mode, 'anchor_generator.ratios': ratios})
    levels = outputs(anchors)
    results = head.predict_by_feat(*levels, batch_img_metas=[META] * 2, with_nms=False)
    for image in range(2):
        expected = [
            f for f in transcription(head, image, levels, mode) if f[2][0] < f[2][2] and f[2][1] < f[2][3]
        ]
        assert len(expected) > 30
        assert_same(results[image], expected)


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('mode', ['mmdet', 'official'])
def test_detections(mode, rescale):
    head = build(**{'test_cfg.inference': mode, 'test_cfg.max_per_img': 10})
    levels = outputs(seed=1)
    results = head.predict_by_feat(*levels, batch_img_metas=[META] * 2, rescale=rescale)
    for image in range(2):
        before = [
            f for f in transcription(head, image, levels, mode) if f[2][0] < f[2][2] and f[2][1] < f[2][3]
        ]
        scale = META['scale_factor'] if rescale else (1, 1)
        expected = suppress(before, 0.6, 10)
        assert len(before) > len(expected) == 10
        assert_same(results[image], expected, scale)


def test_the_modes_differ_in_what_they_keep_and_in_scores():
    levels = outputs(seed=2)
    found = {
        mode: build(**{'test_cfg.inference': mode, 'test_cfg.nms_pre': 3}).predict_by_feat(
            *levels, batch_img_metas=[META] * 2, with_nms=False
        )[0]
        for mode in ('mmdet', 'official')
    }
    squares = (found['official'].scores ** 2)[:3]
    assert torch.equal(squares.sort(descending=True).values, squares)  # ranked by the product
    assert squares.min() > found['mmdet'].scores[:3].min()  # which a rank by class alone misses


def test_nothing_above_the_threshold_and_no_limit():
    levels = outputs()
    nothing = build(**{'test_cfg.inference': 'official', 'test_cfg.score_thr': 0.9999})
    results = nothing.predict_by_feat(*levels, batch_img_metas=[META] * 2)
    assert [len(result) for result in results] == [0, 0]
    assert results[0].bboxes.shape == (0, 4)
    unlimited = build(
        **{'test_cfg.inference': 'official', 'test_cfg.nms_pre': -1, 'test_cfg.min_bbox_size': -1}
    )
    results = unlimited.predict_by_feat(*levels, batch_img_metas=[META] * 2, with_nms=False)
    probabilities = torch.cat([level[0].flatten() for level in levels[0]]).sigmoid()
    assert len(results[0]) == int((probabilities > 0.3).sum())


def test_equals_go_by_prior_and_class():
    head = build(**{'test_cfg.inference': 'official', 'test_cfg.nms_pre': 4, 'test_cfg.min_bbox_size': -1})
    classes, deltas, centerness = ([level * 0 for level in levels] for levels in outputs())
    result = head.predict_by_feat(classes, deltas, centerness, batch_img_metas=[META] * 2, with_nms=False)[0]
    priors = head.prior_generator.grid_priors(SHAPES, device='cpu')[0].clamp(min=0)
    assert result.labels[:4].tolist() == [0, 1, 2, 0]
    assert torch.equal(result.bboxes[:4, 2:], priors[[0, 0, 0, 1], 2:])


def test_without_centerness_both_rank_and_score_by_class():
    levels = outputs()[:2]
    found = [
        build(centerness=False, **{'test_cfg.inference': mode}).predict_by_feat(
            *levels, None, batch_img_metas=[META] * 2, with_nms=False
        )[0]
        for mode in ('mmdet', 'official')
    ]
    assert torch.equal(found[0].scores, found[1].scores)
    assert torch.equal(found[0].bboxes, found[1].bboxes)
    assert found[0].scores.max() == max(level[0].max() for level in levels[0]).sigmoid()


def test_the_mode_of_a_call_goes_before_the_heads():
    head = build()
    assert 'inference' not in head.test_cfg
    settings = ConfigDict({**head.test_cfg, 'inference': 'official'})
    levels = outputs()
    called = head.predict_by_feat(*levels, batch_img_metas=[META] * 2, cfg=settings)
    built = build(**{'test_cfg.inference': 'official'}).predict_by_feat(*levels, batch_img_metas=[META] * 2)
    assert torch.equal(called[0].scores, built[0].scores)
    assert not torch.equal(
        called[0].scores, head.predict_by_feat(*levels, batch_img_metas=[META] * 2)[0].scores
    )
    with pytest.raises(ValueError, match=r"test_cfg\.inference must be 'mmdet' or 'official', got 'sqrt'"):
        head.predict_by_feat(
            *levels, batch_img_metas=[META] * 2, cfg=ConfigDict({**settings, 'inference': 'sqrt'})
        )
