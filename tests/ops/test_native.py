"""Loading of the compiled library, the fallback, and what every op has to hold."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from predicted_samples import prediction_samples
from samples import (
    OpSample,
    assert_identical,
    assign_args,
    attention_inputs,
    make_priors,
    many_gts,
    op_samples,
    random_boxes,
    random_case,
    topk_args,
)

from atss_ext import ops
from atss_ext.ops import native, reference

ROOT = Path(__file__).resolve().parents[2]
LARGE_SHAPES = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
GRID = 'int[] grid_shapes, float[] grid_geometry'
SCHEMAS = {
    'batched_box_iou': '(Tensor boxes1, Tensor boxes2, Tensor? offsets, str mode) -> Tensor',
    'aligned_box_iou': '(Tensor boxes1, Tensor boxes2, str mode) -> Tensor',
    'aligned_box_iou_backward': '(Tensor grad, Tensor boxes1, Tensor boxes2, str mode) -> (Tensor, Tensor)',
    'center_topk': '(Tensor priors, int[] level_sizes, Tensor gt_boxes, Tensor offsets, int k, '
    f'Tensor? valid, Tensor? ignored, {GRID}) -> (Tensor, Tensor)',
    'atss_assign': '(Tensor priors, int[] level_sizes, Tensor gt_boxes, Tensor offsets, int k, '
    'Tensor? valid, Tensor? ignore_boxes, Tensor? ignore_offsets, float ignore_iof_thr, '
    f'bool ensure_positive, {GRID}) -> (Tensor, Tensor, Tensor, Tensor)',
    'gather_targets': '(Tensor priors, Tensor assigned, Tensor gt_boxes, Tensor gt_labels, Tensor offsets, '
    'int num_classes, float pos_weight) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    'task_aligned_assign': '(Tensor priors, Tensor scores, Tensor boxes, Tensor gt_boxes, Tensor gt_labels, '
    'Tensor offsets, Tensor? valid, int topk, float alpha, float beta, bool are_logits) '
    '-> (Tensor, Tensor, Tensor)',
    'dynamic_k_assign': '(Tensor points, Tensor scores, Tensor boxes, Tensor gt_boxes, Tensor gt_labels, '
    'Tensor? gt_centers, Tensor offsets, Tensor? valid, str rule, int topk, float radius, '
    'float iou_weight, float cls_weight, bool are_logits) -> (Tensor, Tensor)',
    'attention_products': '(Tensor rows, Tensor query, Tensor key, float scale) -> (Tensor, Tensor)',
}


def run_python(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    return subprocess.run(
        [sys.executable, '-W', 'always', '-c', code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=120,
        check=False,
    )


def test_the_library_is_built():
    assert ops.available() is True
    assert 'cpu' in native.DEVICES


def test_schemas():
    found = {name: str(getattr(torch.ops.atss_ext, name).default._schema) for name in SCHEMAS}
    assert found == {name: f'atss_ext::{name}{schema}' for name, schema in SCHEMAS.items()}


def test_every_op_of_the_library_is_covered():
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith('atss_ext::')]
    assert {name.removeprefix('atss_ext::') for name in names} == set(SCHEMAS)
    assert {sample.op for sample in op_samples()} == set(SCHEMAS)


def test_a_device_without_kernels_gets_the_reference():
    assert native.serves(torch.empty(1))
    assert not native.serves(torch.empty(1, device='meta'))
    boxes = torch.empty(5, 4, device='meta', dtype=torch.half)
    for result in (ops.aligned_box_iou(boxes, boxes), ops.batched_box_iou(boxes, boxes)[0]):
        assert (result.device.type, result.dtype, result.shape) == ('meta', torch.half, (5,))


def test_without_devices_every_function_runs_the_reference(monkeypatch):
    monkeypatch.setattr(native, 'DEVICES', frozenset())
    assert ops.available() is False
    monkeypatch.setattr(torch.ops, 'atss_ext', None)  # any native call would fail
    case = random_case()
    ours = ops.atss_assign(**case.arguments())
    assert_identical(ours, reference.atss_assign(**case.arguments(grid=False)))
    assert_identical(
        ops.center_topk(**case.topk_arguments()), reference.center_topk(**case.topk_arguments(grid=False))
    )
    labels = torch.arange(len(case.boxes))
    targets = case.priors, ours.assigned, case.boxes, labels, case.offsets, 80
    assert_identical(ops.gather_targets(*targets), reference.gather_targets(*targets))
    pair = case.boxes.half(), case.boxes.roll(1, 0).half()
    expected = reference.aligned_box_iou(*(box.float() for box in pair), 'giou').half()
    assert torch.equal(ops.aligned_box_iou(*pair, 'giou'), expected)
    assert torch.equal(ops.batched_box_iou(*pair, 'giou').diagonal(), expected)


WITHOUT_LIBRARY = """
import sys, warnings
sys.modules['atss_ext._C'] = None  # the import of atss_ext._C now fails
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    from atss_ext import ops
    from atss_ext.ops import reference
    from samples import assert_identical, random_case
    case = random_case()
    for _ in range(3):
        result = ops.atss_assign(**case.arguments())
        ops.batched_box_iou(case.boxes, case.boxes)
ours = [str(w.message) for w in caught if 'atss_ext' in str(w.message)]
assert len(ours) == 1, ours
assert ops.available() is False
assert_identical(result, reference.atss_assign(**case.arguments(grid=False)))
print(ours[0])
"""


def test_a_missing_library_is_said_once():
    done = run_python(WITHOUT_LIBRARY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('atss_ext runs its PyTorch reference: the compiled library does not load')
    assert 'pip install --no-build-isolation -e .' in done.stdout


def test_a_present_library_warns_of_nothing():
    done = run_python('from atss_ext import ops; print(ops.available())')
    assert done.stdout == 'True\n'
    assert 'PyTorch reference' not in done.stderr


BARE_MACHINE = """
import os, sys
os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'  # Hypothesis' own
for name in ('mmdet', 'mmengine', 'mmcv', 'hypothesis'):
    sys.modules[name] = None
import pytest
sys.exit(pytest.main(['-m', 'cuda', '--collect-only', '-q', 'tests/ops']))
"""


def test_gpu_tests_collect_with_torch_and_pytest_alone():
    done = run_python(BARE_MACHINE)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = [line for line in done.stdout.splitlines() if '::' in line]
    assert len(collected) > len(SCHEMAS)
    assert all(line.startswith('tests/ops/test_cuda.py::') for line in collected)


# opcheck runs each a dozen times: these have every kind of argument, and every way to have none.
CHECKED = (
    *('iou', 'ciou', 'random', 'no gts', 'weighted', 'all empty', 'no priors', 'empty level'),
    *('ignored, masked, ensured', 'zero area, ensured', 'no grid'),
)


@pytest.mark.parametrize('op', SCHEMAS)
def test_opcheck(op):
    samples = [s for s in op_samples() if s.op == op and s.name.startswith(CHECKED)]
    assert len(samples) >= 5
    for sample in samples:
        results = torch.library.opcheck(getattr(torch.ops.atss_ext, op).default, sample.args)
        assert set(results.values()) == {'SUCCESS'}, sample


@pytest.mark.parametrize('mode', ['iou', 'iof', 'giou', 'diou', 'ciou'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
def test_opcheck_with_gradients(mode, dtype):
    boxes = [random_boxes(7, seed).to(dtype).requires_grad_() for seed in (1, 2)]
    results = torch.library.opcheck(torch.ops.atss_ext.aligned_box_iou.default, (*boxes, mode))
    assert set(results.values()) == {'SUCCESS'}


@contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def large_samples() -> list[OpSample]:
    """Inputs large enough that every op divides its work."""
    a, b = random_boxes(40000, 1), random_boxes(40000, 2)
    priors = make_priors(LARGE_SHAPES)
    assigned = torch.randint(-1, 30, (2, len(priors)))
    gts, labels, offsets = b[:60], torch.arange(60), torch.tensor([0, 30, 60])
    case = many_gts()
    return [
        OpSample('aligned_box_iou', 'large', (a, b, 'ciou')),
        OpSample('aligned_box_iou_backward', 'large', (a[:, 0].contiguous(), a, b, 'giou')),
        OpSample('batched_box_iou', 'large', (a, b[:60], offsets, 'iou')),
        OpSample('gather_targets', 'large', (priors, assigned, gts, labels, offsets, 80, -1.0)),
        OpSample('center_topk', 'large', topk_args(case, grid=False)),
        OpSample('atss_assign', 'large', assign_args(case, grid=False)),
        OpSample('attention_products', 'large', attention_inputs(12, 4, 500, 64)),
        *prediction_samples('large', (100, 0, 70), LARGE_SHAPES),
    ]


@pytest.mark.parametrize('sample', large_samples(), ids=str)
def test_large_input_is_independent_of_threads(sample):
    assert_thread_count_does_not_matter(sample)


@pytest.mark.parametrize('op', SCHEMAS)
def test_independent_of_threads(op):
    for sample in op_samples():
        if sample.op == op:
            assert_thread_count_does_not_matter(sample)


def assert_thread_count_does_not_matter(sample: OpSample) -> None:
    with threads(1):
        one = sample()
    with threads(2):
        two = sample()
    assert_identical(one, two)


@pytest.mark.parametrize('op', SCHEMAS)
def test_non_contiguous_input(op):
    """Every tensor with its dimensions in the opposite order of memory, and every second element skipped."""
    for sample in op_samples():
        if sample.op != op or sample.name.startswith('many'):
            continue
        strided = tuple(scatter_in_memory(a) if isinstance(a, torch.Tensor) else a for a in sample.args)
        assert_identical(sample._replace(args=strided)(), sample())


def scatter_in_memory(tensor: torch.Tensor) -> torch.Tensor:
    reverse = list(range(tensor.dim()))[::-1]
    turned = tensor.permute(reverse).contiguous().permute(reverse)
    result = torch.stack([turned, torch.ones_like(turned)], -1)[..., 0]
    assert torch.equal(result.nan_to_num(0), tensor.nan_to_num(0))
    return result


THREADS = """
import os
os.environ['OMP_NUM_THREADS'] = '1'  # no thread of OpenMP starts while the input is made
import torch
from test_native import large_samples

sample = next(sample for sample in large_samples() if sample.op == 'atss_assign')
torch.set_num_threads(2)  # starts a thread of PyTorch's own
before = len(os.listdir('/proc/self/task'))
sample()
print(len(os.listdir('/proc/self/task')) - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='counts threads in /proc')
def test_large_input_really_uses_several_threads():
    """Nothing but a wrong compiler flag is needed for a library that runs on one thread without a word."""
    done = run_python(THREADS)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '1\n'


def test_compiling_the_fallback_reads_no_offsets(monkeypatch):
    """Its checks look at shapes alone while a compiler traces."""
    monkeypatch.setattr(native, 'DEVICES', frozenset())
    boxes, offsets = random_boxes(6), torch.tensor([0, 2, 6])
    compiled = torch.compile(ops.batched_box_iou, fullgraph=True, backend='eager')
    expected = ops.batched_box_iou(boxes, boxes, 'giou', offsets)
    assert_identical([compiled(boxes, boxes, 'giou', offsets)], [expected])
