"""mmcv.ops, as users call it, on the torchvision-backed ``mmcv._ext``, against plain transcriptions."""

# First, because it makes mmcv.ops importable without a compiled mmcv.
import atss_ext  # noqa: F401

# isort: split
import math

import mmcv._ext
import mmcv.ops
import numpy as np
import pytest
import torch
from mmcv.utils import collect_env


def random_boxes(count, seed, side=40):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, side, (count, 2))
    return torch.tensor(
        np.concatenate((corner, corner + rng.uniform(1, side, (count, 2))), 1), dtype=torch.float32
    )


def distinct_scores(count, seed):
    return (torch.randperm(count, generator=torch.Generator().manual_seed(seed)) + 1) / (count + 1)


def iou_of(a, b, offset):
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(width, 0.0) * max(height, 0.0)
    area = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return inter / (area[0] + area[1] - inter)


def greedy_nms(boxes, scores, threshold, offset):
    boxes, kept = boxes.tolist(), []
    for index in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        if all(iou_of(boxes[index], boxes[other], offset) <= threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.8])
def test_nms_keeps_what_a_greedy_loop_keeps(threshold, offset):
    for seed in range(5):
        boxes, scores = random_boxes(80, seed), distinct_scores(80, seed)
        dets, kept = mmcv.ops.nms(boxes, scores, threshold, offset=offset)
        assert kept.tolist() == greedy_nms(boxes, scores, threshold, offset)
        assert torch.equal(dets, torch.cat((boxes[kept], scores[kept, None]), 1))


def test_nms_offset_counts_the_last_pixel():
    # One pixel wide in the inclusive convention: IoU 1/3 with offset 1, 0 without.
    boxes = torch.tensor([[0.0, 0, 1, 0], [1, 0, 2, 0]])
    scores = torch.tensor([0.9, 0.8])
    assert mmcv.ops.nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]
    assert mmcv.ops.nms(boxes, scores, 0.4, offset=1)[1].tolist() == [0, 1]


def test_nms_compares_the_threshold_in_float32():
    # The IoU is 3 / 10 and float32(0.3) > 0.3: it is not above the threshold.
    boxes = torch.tensor([[0.0, 0, 6, 1], [3, 0, 10, 1]])
    assert mmcv.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.3)[1].tolist() == [0, 1]
    assert mmcv.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.2999)[1].tolist() == [0]


def test_nms_options_and_input_kinds():
    boxes, scores = random_boxes(50, 3), distinct_scores(50, 3)
    expected = greedy_nms(boxes, scores, 0.5, 0)
    dets, kept = mmcv.ops.nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(dets, np.ndarray)
    assert kept.tolist() == expected
    assert mmcv.ops.nms(boxes, scores, 0.5, max_num=3)[1].tolist() == expected[:3]
    over = [i for i in expected if scores[i] > 0.5]
    assert mmcv.ops.nms(boxes, scores, 0.5, score_threshold=0.5)[1].tolist() == over
    # Halves may be mixed with floats, and are compared as floats of the same values.
    half = boxes.half()
    assert mmcv.ops.nms(half, scores, 0.5)[1].tolist() == greedy_nms(half, scores, 0.5, 0)
    dets, kept = mmcv.ops.nms(boxes[:0], scores[:0], 0.5)
    assert dets.shape == (0, 5)
    assert kept.dtype == torch.long


def test_batched_nms_suppresses_within_a_class_only():
    boxes, scores = random_boxes(90, 7), distinct_scores(90, 7)
    labels = torch.arange(90) % 3
    _, kept = mmcv.ops.batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.4))
    expected = []
    for label in range(3):
        own = (labels == label).nonzero().flatten()
        expected += own[greedy_nms(boxes[own], scores[own], 0.4, 0)].tolist()
    assert kept.tolist() == sorted(expected, key=lambda i: -float(scores[i]))


def paper_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    """Figure 2 of the paper, with the score threshold applied after each round."""
    rest, kept = [[i, float(s)] for i, s in enumerate(scores)], []
    boxes = boxes.tolist()
    while rest:
        best = max(rest, key=lambda entry: entry[1])
        rest.remove(best)
        kept.append(tuple(best))
        for entry in rest:
            iou = iou_of(boxes[best[0]], boxes[entry[0]], offset)
            if method == 'gaussian':
                entry[1] *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                entry[1] *= 1 - iou if method == 'linear' else 0.0
        rest = [entry for entry in rest if entry[1] >= min_score]
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['linear', 'gaussian', 'naive'])
def test_soft_nms_follows_the_paper(method, offset):
    for seed in range(4):
        boxes, scores = random_boxes(40, seed).double(), distinct_scores(40, seed).double()
        expected = paper_soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
        dets, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
        assert kept.tolist() == [index for index, _ in expected]
        torch.testing.assert_close(dets[:, :4], boxes[kept])
        torch.testing.assert_close(dets[:, 4], torch.tensor([s for _, s in expected], dtype=torch.float64))


def test_soft_nms_edges():
    boxes = torch.tensor([[4.0, 3, 4, 3], [0, 0, 8, 8], [4, 3, 4, 3], [0, 0, 8, 8]])
    scores = torch.tensor([0.5, 0.9, 0.5, 0.9])
    # Equal scores: the lower index first. Empty boxes overlap nothing, whatever the method.
    for method in ('linear', 'gaussian'):
        _, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, 1e-6, method)
        assert kept.tolist()[0] == 1
        assert kept.tolist().index(0) < kept.tolist().index(2)
    # The first box is taken whatever its score, as in mmcv; the others must reach min_score.
    dets, kept = mmcv.ops.soft_nms(boxes, scores / 1000, 0.3, 0.5, 0.1, 'linear')
    assert kept.tolist() == [1]
    torch.testing.assert_close(dets, torch.tensor([[0.0, 0, 8, 8, 0.0009]]))
    dets, kept = mmcv.ops.soft_nms(boxes[:0].numpy(), scores[:0].numpy())
    assert dets.shape == (0, 5)
    assert len(kept) == 0


def test_batched_soft_nms_returns_decayed_scores():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 5]])
    config = dict(type='soft_nms', iou_threshold=0.3, method='linear', min_score=0.01)
    dets, kept = mmcv.ops.batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]), config)
    assert kept.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.7, 0.4]))


def bilinear(image, y, x):
    """[C, h, w] sampled at one point, as the RoIAlign of Mask R-CNN does at the border."""
    height, width = image.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return image.new_zeros(image.size(0))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[:, top, left] * (1 - (x - left)) + image[:, top, right] * (x - left)
    lower = image[:, bottom, left] * (1 - (x - left)) + image[:, bottom, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def literal_roi_align(features, rois, size, scale, sampling, aligned):
    """One bin after the other: the mean of its bilinear samples. Differentiable by ``features``."""
    bins = []
    for image, *box in rois.tolist():
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0.0) for c in box)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        rows = sampling or math.ceil(height / size[0])
        columns = sampling or math.ceil(width / size[1])
        for i in range(size[0]):
            for j in range(size[1]):
                samples = [
                    bilinear(
                        features[int(image)],
                        y1 + (i + (r + 0.5) / rows) * height / size[0],
                        x1 + (j + (c + 0.5) / columns) * width / size[1],
                    )
                    for r in range(rows)
                    for c in range(columns)
                ]
                bins.append(torch.stack(samples).mean(0))
    return torch.stack(bins).view(len(rois), *size, -1).permute(0, 3, 1, 2)


ROIS = [
    [0, 2.2, 1.3, 19.1, 12.6],
    [1, 0.0, 0.0, 8.0, 30.0],
    [0, -6.0, 10.0, 40.0, 29.5],
    [1, 5.0, 5.0, 5.5, 5.4],
]


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling', [0, 2])
def test_roi_align_and_its_gradient(sampling, aligned):
    torch.manual_seed(0)
    features = torch.randn(2, 3, 8, 9, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    expected = literal_roi_align(features, rois, (3, 2), 0.25, sampling, aligned)
    layer = mmcv.ops.RoIAlign((3, 2), 0.25, sampling, aligned=aligned)
    actual = layer(features, rois)
    torch.testing.assert_close(actual, expected)
    probe = torch.randn_like(expected)
    grads = [torch.autograd.grad((out * probe).sum(), features)[0] for out in (actual, expected)]
    torch.testing.assert_close(*grads)


def test_roi_align_of_halves():
    torch.manual_seed(1)
    features = torch.randn(2, 3, 8, 9).half().requires_grad_()
    rois = torch.tensor(ROIS)
    layer = mmcv.ops.RoIAlign(2, 0.25, 2)
    actual = layer(features, rois)
    assert actual.dtype == torch.float16
    torch.testing.assert_close(actual.float(), layer(features.float(), rois), atol=2e-3, rtol=2e-3)
    actual.sum().backward()
    assert features.grad.dtype == torch.float16
    twin = features.detach().float().requires_grad_()
    layer(twin, rois).sum().backward()
    torch.testing.assert_close(features.grad.float(), twin.grad, atol=5e-3, rtol=5e-3)


def test_roi_align_by_maximum_is_refused_in_one_sentence():
    layer = mmcv.ops.RoIAlign(2, pool_mode='max')
    with pytest.raises(RuntimeError, match=r"^RoIAlign with pool_mode='max' .*install[^.\n]*mmcv [^\n]*$"):
        layer(torch.zeros(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]))


def literal_focal_loss(logits, target, gamma, alpha, weight):
    rows = []
    for row, label in zip(logits, target.tolist(), strict=True):
        for column, logit in enumerate(row):
            p = 1 / (1 + torch.exp(-logit))
            loss = (
                -alpha * (1 - p) ** gamma * p.log()
                if column == label
                else -(1 - alpha) * p**gamma * (1 - p).log()
            )
            rows.append(loss * (weight[label] if weight is not None and label < len(weight) else 1.0))
    return torch.stack(rows).view_as(logits)


@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss_and_its_gradient(weighted, reduction):
    torch.manual_seed(2)
    logits = (3 * torch.randn(12, 4, dtype=torch.float64)).requires_grad_()
    # 4 is background: no positive class, and no weight of its own.
    target = torch.tensor([0, 1, 2, 3, 4, 4, 0, 3, 4, 2, 1, 1])
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64) if weighted else None
    expected = literal_focal_loss(logits, target, 1.5, 0.3, weight)
    expected = {'none': expected, 'sum': expected.sum(), 'mean': expected.sum() / 12}[reduction]
    actual = mmcv.ops.SigmoidFocalLoss(1.5, 0.3, weight, reduction)(logits, target)
    torch.testing.assert_close(actual, expected)
    probe = torch.randn_like(expected)
    grads = [torch.autograd.grad((out * probe).sum(), logits)[0] for out in (actual, expected)]
    torch.testing.assert_close(*grads)


def test_sigmoid_focal_loss_of_sure_logits_stays_exact():
    # log(1 - sigmoid(120)) is -120; computed as written it is the log of zero in float32.
    logits = torch.tensor([[120.0, -120.0]], requires_grad=True)
    loss = mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, 'none')
    torch.testing.assert_close(loss, torch.tensor([[0.75 * 120, 0.25 * 120]]))
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.75, -0.25]]))


def test_sigmoid_focal_loss_of_halves():
    torch.manual_seed(3)
    logits, target = torch.randn(6, 3).half().requires_grad_(), torch.tensor([0, 1, 2, 3, 3, 0])
    loss = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'sum')
    loss.backward()
    twin = logits.detach().float().requires_grad_()
    expected = mmcv.ops.sigmoid_focal_loss(twin, target, 2.0, 0.25, None, 'sum')
    expected.backward()
    assert loss.dtype == logits.grad.dtype == torch.float16
    torch.testing.assert_close(loss.float(), expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(logits.grad.float(), twin.grad, rtol=2e-3, atol=2e-3)


def test_other_ops_raise_when_called_and_say_what_to_install():
    sentence = r"^mmcv\.ops needs the compiled op '{}'[^\n]* install a compiled mmcv [^\n]*onedl-mmcv[^\n]*$"
    with pytest.raises(RuntimeError, match=sentence.format('nms_match')):
        mmcv.ops.nms_match(torch.rand(3, 5), 0.5)
    with pytest.raises(RuntimeError, match=sentence.format('carafe_forward')):
        mmcv.ops.CARAFE(3, 1, 2)(torch.rand(1, 4, 3, 3), torch.rand(1, 9, 6, 6))
    with pytest.raises(RuntimeError, match=sentence.format('an_op_of_next_year')):
        mmcv._ext.an_op_of_next_year(1, key=2)


def test_the_module_does_not_answer_to_what_is_no_op():
    assert not hasattr(mmcv._ext, '__wrapped__')
    assert not hasattr(mmcv._ext, '__path__')
    assert mmcv._ext.__spec__.name == 'mmcv._ext'


def test_the_environment_report_of_mmcv_names_torchvision():
    assert 'torchvision' in collect_env()['MMCV Compiler']
