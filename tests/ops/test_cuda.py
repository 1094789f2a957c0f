"""CUDA against the CPU: the same bits, without waiting for the device. Needs torch and pytest alone."""

import pytest
import torch
from samples import (
    assert_identical,
    cuda_samples,
    make_priors,
    offsets_of,
    random_boxes,
    random_case,
)

from atss_ext import ops
from atss_ext.ops import native

pytestmark = pytest.mark.cuda

LARGE_SHAPES = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))


def assert_equal_but_for_atan(ours: tuple, theirs: tuple) -> None:
    """CIoU: each side has its own arc tangent, which no standard asks to be rounded correctly.

    Both are good to 2 ulp of at most pi / 2; the penalty and its slopes enlarge that less than tenfold.
    """
    for a, b in zip(ours, theirs, strict=True):
        room = 20 * torch.finfo(a.dtype).eps
        torch.testing.assert_close(a, b, rtol=room, atol=room, equal_nan=True)


def to_cpu(results: tuple) -> tuple:
    return tuple(result.cpu() for result in results)


def test_the_library_serves_the_device():
    assert 'cuda' in native.DEVICES


@pytest.mark.parametrize('sample', cuda_samples(), ids=str)
def test_equals_the_cpu(sample):
    ours, theirs = to_cpu(sample('cuda')), sample()
    if 'ciou' in sample.args:
        assert_equal_but_for_atan(ours, theirs)
    else:
        assert_identical(ours, theirs)


def large_arguments(device: str) -> dict:
    """Of atss_assign: 22,400 priors, 16 images of which one is empty; no grid."""
    counts = [100] * 7 + [0] + [100] * 8
    priors = make_priors(LARGE_SHAPES)
    sizes = [height * width for height, width in LARGE_SHAPES]
    boxes = random_boxes(sum(counts), 11, (1344, 800))
    return {
        'priors': priors.to(device),
        'level_sizes': sizes,
        'gt_boxes': boxes.to(device),
        'offsets': offsets_of(counts).to(device),
        'k': 9,
    }


def large_grid():
    return ops.find_grid(make_priors(LARGE_SHAPES), LARGE_SHAPES, [1] * len(LARGE_SHAPES))


def assign_and_gather(arguments: dict, labels: torch.Tensor) -> tuple:
    result = ops.atss_assign(**arguments)
    targets = ops.gather_targets(
        arguments['priors'], result.assigned, arguments['gt_boxes'], labels, arguments['offsets'], 80
    )
    return (*result, *targets)


def test_find_grid_reads_priors_of_the_device():
    counts = [1] * len(LARGE_SHAPES)
    assert ops.find_grid(make_priors(LARGE_SHAPES).cuda(), LARGE_SHAPES, counts) == large_grid()


@pytest.mark.parametrize('grid', [False, True])
@pytest.mark.parametrize('ensure_positive', [False, True])
def test_large_batch_equals_the_cpu_and_repeats_itself(grid, ensure_positive):
    extra = {'grid': large_grid() if grid else None, 'ensure_positive': ensure_positive}
    expected = ops.atss_assign(**large_arguments('cpu'), **extra)
    assert int(expected.num_positives.sum()) > 1000
    on_device = large_arguments('cuda')
    for _ in range(20):
        assert_identical(to_cpu(ops.atss_assign(**on_device, **extra)), expected)


@pytest.mark.parametrize(
    'sample', [s for s in cuda_samples() if s.name.startswith(('random', 'ciou'))], ids=str
)
def test_repeats_itself(sample):
    first = sample('cuda')
    for _ in range(20):
        assert_identical(sample('cuda'), first)


@pytest.mark.parametrize('grid', [False, True])
def test_in_a_cuda_graph(grid):
    arguments = {**large_arguments('cuda'), 'grid': large_grid() if grid else None}
    labels = torch.arange(len(arguments['gt_boxes']), device='cuda') % 80
    boxes = arguments['gt_boxes'].clone()
    assign_and_gather(arguments, labels)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = assign_and_gather(arguments, labels)
    arguments['gt_boxes'].copy_(boxes.roll(50, 0))  # the graph has to read what is there when it runs
    graph.replay()
    torch.cuda.synchronize()
    expected = assign_and_gather({**arguments, 'gt_boxes': boxes.roll(50, 0)}, labels)
    assert_identical(captured, expected)
    assert int((captured[0] > 0).sum()) > 1000


def assert_no_synchronisation(function) -> None:
    function()  # the first call may load modules
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        function()
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('grid', [False, True])
@pytest.mark.parametrize('masks', [False, True])
def test_assignment_does_not_wait(grid, masks):
    case = random_case((5, 0, 12), regions=(1, 2, 0))
    arguments = {**case.arguments(), 'grid': case.grid if grid else None}
    arguments['valid'] = torch.rand(3, len(case.priors)) < 0.8 if masks else None
    if not masks:
        arguments.update(ignore_boxes=None, ignore_offsets=None)
    on_device = {n: a.cuda() if isinstance(a, torch.Tensor) else a for n, a in arguments.items()}
    labels = torch.zeros(len(case.boxes), dtype=torch.long, device='cuda')
    assert_no_synchronisation(lambda: assign_and_gather(on_device, labels))


@pytest.mark.parametrize(
    'sample', [s for s in cuda_samples() if s.name.startswith(('random', 'iou', 'ciou'))], ids=str
)
def test_single_ops_do_not_wait(sample):
    op, args = getattr(torch.ops.atss_ext, sample.op), sample.to('cuda')
    assert_no_synchronisation(lambda: op(*args))


def test_bad_arguments_are_named():
    boxes = random_boxes(3).cuda()
    with pytest.raises(ValueError, match=r'offsets is on cpu and the boxes on cuda:0: move one of them'):
        ops.batched_box_iou(boxes, boxes, 'iou', torch.tensor([0, 3]))
    with pytest.raises(ValueError, match='k must be at least 1, got 0'):
        ops.center_topk(boxes, [3], boxes, torch.tensor([0, 3], device='cuda'), 0)


def test_gradient_equals_the_cpu():
    pairs = [
        [random_boxes(100, seed).to(device).requires_grad_() for seed in (1, 2)] for device in ('cpu', 'cuda')
    ]
    for boxes in pairs:
        ops.aligned_box_iou(*boxes, 'giou').sum().backward()
    for cpu, cuda in zip(*pairs, strict=True):
        assert torch.equal(cpu.grad, cuda.grad.cpu())
