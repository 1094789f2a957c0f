"""torch.compile without a break, torch.export and autocast: the same results as eager."""

from typing import NamedTuple

import pytest
import torch
from samples import assert_identical, random_boxes, random_case, random_mask
from torch import Tensor

from atss_ext import ops

CASE = random_case((6, 0, 9), regions=(1, 0, 2))


class Inputs(NamedTuple):
    """What changes from step to step."""

    priors: Tensor
    boxes: Tensor
    labels: Tensor
    offsets: Tensor
    valid: Tensor
    predicted: Tensor
    ignore_boxes: Tensor
    ignore_offsets: Tensor


def inputs() -> Inputs:
    labels = torch.arange(15) % 7
    valid = random_mask(3, len(CASE.priors), 0.8)
    predicted = random_boxes(len(CASE.priors), 8)
    regions = CASE.ignore_boxes, CASE.ignore_offsets
    return Inputs(CASE.priors, CASE.boxes, labels, CASE.offsets, valid, predicted, *regions)


def step(
    priors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    offsets: Tensor,
    valid: Tensor,
    predicted: Tensor,
    ignore_boxes: Tensor,
    ignore_offsets: Tensor,
) -> tuple[Tensor, ...]:
    """Every op as a head uses it, by both routes, and a little arithmetic that a compiler may fuse."""
    shift = boxes * 1.0
    searched = ops.atss_assign(
        priors, CASE.sizes, shift, offsets, 9, valid, ignore_boxes, ignore_offsets, 0.3, True
    )
    by_grid = ops.atss_assign(priors, CASE.sizes, shift, offsets, 9, valid, grid=CASE.grid)
    candidates = ops.center_topk(priors, CASE.sizes, shift, offsets, 5, valid, grid=CASE.grid)
    targets = ops.gather_targets(priors, by_grid.assigned, shift, labels, offsets, 7, 2.0)
    aligned = ops.aligned_box_iou(predicted, targets.boxes[0], 'giou')
    pairs = ops.batched_box_iou(priors, shift, 'iou', offsets)
    loss = (targets.weights[0] * (1 - aligned)).mean()
    return (*searched, *by_grid, *candidates, *targets, aligned, pairs, loss)


def assert_same_but_for_loss(ours: tuple, theirs: tuple) -> None:
    """Results of ops bit by bit; the loss is PyTorch's own sum, which a compiler may reorder."""
    assert_identical(ours[:-1], theirs[:-1])
    torch.testing.assert_close(ours[-1], theirs[-1])


@pytest.mark.parametrize('backend', ['eager', 'aot_eager', 'inductor'])
def test_compiles_into_one_graph(backend):
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    expected = step(*inputs())
    assert int((expected[0] > 0).sum()) > 10
    assert_same_but_for_loss(compiled(*inputs()), expected)


def test_compiles_for_any_number_of_gts():
    graphs = []

    def counting(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(step, fullgraph=True, backend=counting, dynamic=True)
    for count in (4, 7, 15, 2):
        first = inputs()
        offsets = torch.tensor([0, 1, 1, count])
        args = first._replace(boxes=first.boxes[:count], labels=first.labels[:count], offsets=offsets)
        assert_same_but_for_loss(compiled(*args), step(*args))
    assert len(graphs) == 1


@pytest.mark.parametrize('backend', ['aot_eager', 'inductor'])
@pytest.mark.parametrize('mode', ['giou', 'ciou'])
def test_gradients_compile(backend, mode):
    def loss(boxes: Tensor, gts: Tensor) -> Tensor:
        return (1 - ops.aligned_box_iou(boxes, gts, mode)).sum()

    pairs = [[random_boxes(30, seed).requires_grad_() for seed in (1, 2)] for _ in range(2)]
    loss(*pairs[0]).backward()
    torch.compile(loss, fullgraph=True, backend=backend)(*pairs[1]).backward()
    for eager, compiled in zip(*pairs, strict=True):
        assert eager.grad.abs().max() > 0
        assert torch.equal(compiled.grad, eager.grad)


def test_all_pairs_with_a_gradient_compile():
    def total(boxes: Tensor, gts: Tensor) -> Tensor:
        return ops.batched_box_iou(boxes, gts, 'giou').sum()

    pairs = [[random_boxes(9, seed).requires_grad_() for seed in (1, 2)] for _ in range(2)]
    total(*pairs[0]).backward()
    torch.compile(total, fullgraph=True, backend='aot_eager')(*pairs[1]).backward()
    for eager, compiled in zip(*pairs, strict=True):
        torch.testing.assert_close(compiled.grad, eager.grad)


class Step(torch.nn.Module):
    """:func:`step` as a module."""

    def forward(
        self,
        priors: Tensor,
        boxes: Tensor,
        labels: Tensor,
        offsets: Tensor,
        valid: Tensor,
        predicted: Tensor,
        ignore_boxes: Tensor,
        ignore_offsets: Tensor,
    ) -> tuple[Tensor, ...]:
        return step(priors, boxes, labels, offsets, valid, predicted, ignore_boxes, ignore_offsets)


def test_exports():
    exported = torch.export.export(Step(), tuple(inputs()))
    names = {str(node.target) for node in exported.graph.nodes}
    assert {'atss_ext.atss_assign.default', 'atss_ext.gather_targets.default'} <= names
    assert_identical(exported.module()(*inputs()), step(*inputs()))


def test_exports_for_any_number_of_gts():
    gts = torch.export.Dim('gts', min=2, max=1000)
    shapes = {'boxes': {0: gts}, 'labels': {0: gts}}
    names = inputs()._fields
    dynamic = {name: shapes.get(name) for name in names}
    exported = torch.export.export(Step(), tuple(inputs()), dynamic_shapes=dynamic).module()
    fewer = inputs()._replace(
        boxes=CASE.boxes[:5], labels=torch.arange(5), offsets=torch.tensor([0, 2, 5, 5])
    )
    assert_identical(exported(*fewer), step(*fewer))


class Regressor(torch.nn.Module):
    """Predicts boxes under autocast and holds them against gts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, priors: Tensor, boxes: Tensor, offsets: Tensor) -> tuple[Tensor, ...]:
        moved = self.layer(boxes)
        predicted = torch.cat([boxes[:, :2].to(moved.dtype), moved[:, 2:].abs() + boxes[:, 2:]], 1)
        result = ops.atss_assign(priors, CASE.sizes, predicted, offsets, 9, grid=CASE.grid)
        return predicted, *result, ops.aligned_box_iou(predicted, boxes, 'giou')


@pytest.mark.parametrize('backend', ['aot_eager', 'inductor'])
def test_autocast(backend):
    regressor = Regressor()
    args = CASE.priors, CASE.boxes.bfloat16(), CASE.offsets
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        predicted, *expected = regressor(*args)
        compiled = torch.compile(regressor, fullgraph=True, backend=backend)(*args)
    assert predicted.dtype == torch.bfloat16
    assert expected[-1].dtype == torch.bfloat16
    assert_identical(compiled, [predicted, *expected])
    outside = ops.atss_assign(CASE.priors, CASE.sizes, predicted, CASE.offsets, 9, grid=CASE.grid)
    assert outside.ious.dtype == torch.float32
    assert_identical(expected[:4], outside)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_leaves_float32_alone(dtype):
    plain = step(*inputs())
    with torch.autocast('cpu', dtype):
        assert_identical(step(*inputs())[:-1], plain[:-1])
