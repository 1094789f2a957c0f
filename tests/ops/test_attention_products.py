"""Rows of causal attention against a float64 softmax of the whole matrix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from samples import assert_identical, attention_inputs
from torch import Tensor

from atss_ext import ops
from atss_ext.ops import native, reference

SHAPES = {
    'one token': {'tokens': 1},
    'two tokens': {'tokens': 2, 'depth': 1},
    'one object': {'objects': 1},
    'many objects': {'objects': 9},
    'no objects': {'objects': 0},
    'own keys': {'groups': 4},
    'one key head': {'heads': 6, 'groups': 1, 'tokens': 30},
    'blocks of 48': {'tokens': 48},
    'a block and one': {'tokens': 49},
    'end of a panel': {'tokens': 96, 'depth': 3},
    'several blocks': {'tokens': 643, 'depth': 40, 'objects': 5},
}


def whole(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """The softmax itself, float64 [H, N, N]."""
    key = key.double().repeat_interleave(len(query) // len(key), 0)
    scores = torch.einsum('hid,hjd->hij', query.double(), key) * scale
    future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1)


def expected(rows: Tensor, query: Tensor, key: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    softmax = whole(query, key, scale)
    return torch.einsum('oi,hij->hoj', rows.double(), softmax), softmax.amax(-1).mean(-1)


def assert_near(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], tolerance: float = 3e-6) -> None:
    """Relative, entry by entry: everything is positive."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.float32
        assert one.shape == other.shape
        assert ((one - other).abs() <= tolerance * other).all()


@pytest.mark.parametrize('name', SHAPES)
def test_equals_the_whole_softmax(route, name):
    inputs = attention_inputs(**SHAPES[name])
    assert_near(ops.attention_products(*inputs), expected(*inputs))


@pytest.mark.parametrize('queries', [1, 7, 64, 211, 1000])
def test_the_block_of_the_reference_does_not_matter(queries):
    inputs = attention_inputs(tokens=211)
    assert_near(reference.attention_products(*inputs, queries=queries), expected(*inputs))


def test_literal_values(route):
    """Scores 0 and log 3 at the second token: its softmax is 1/4, 3/4."""
    query = torch.tensor([[[1.0], [1.0]]])
    key = torch.tensor([[[1.0], [3.0]]]).log()
    rows = torch.tensor([[0.0, 1.0], [1.0, 2.0]])
    products, certainty = ops.attention_products(rows, query, key, 1.0)
    torch.testing.assert_close(products, torch.tensor([[[0.25, 0.75], [1.5, 1.5]]]))
    torch.testing.assert_close(certainty, torch.tensor([0.875]))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(route, dtype):
    rows, query, key, scale = attention_inputs(tokens=100)
    query, key = query.to(dtype), key.to(dtype)
    upcast = ops.attention_products(rows, query.float(), key.float(), scale)
    assert_identical(ops.attention_products(rows, query, key, scale), upcast)
    assert_near(upcast, expected(rows, query, key, scale))


def test_views_are_read_where_they_lie(route):
    rows, query, key, scale = attention_inputs(tokens=100)
    part = slice(13, 77)
    cut = rows[:, part], query[:, part], key[:, part]
    copies = [one.contiguous() for one in cut]
    assert_identical(ops.attention_products(*cut, scale), ops.attention_products(*copies, scale))
    turned = query.mT.contiguous().mT
    assert_identical(
        ops.attention_products(rows, turned, key, scale), ops.attention_products(rows, query, key, scale)
    )


def test_other_objects_do_not_change_a_row():
    """Bit by bit, on the native route."""
    assert native.available()
    rows, *others = attention_inputs(tokens=200, objects=11)
    together = ops.attention_products(rows, *others).products
    order = torch.randperm(11)
    assert torch.equal(ops.attention_products(rows[order], *others).products, together[:, order])
    for number in range(11):
        alone = ops.attention_products(rows[number : number + 1], *others).products
        assert torch.equal(alone[:, 0], together[:, number])


def test_small_terms_survive_beside_a_great_one(route):
    """Every query looks at the first token, whose weight is so great that half a unit of it is 4.

    Sums that begin with it keep none of the 3.5 that each of the others adds.
    """
    tokens = 600
    query, key = torch.ones(2, tokens, 1), torch.zeros(2, tokens, 1)
    key[:, 0] = 60
    rows = torch.full((1, tokens), 3.5)
    rows[0, 0] = 2.0**26
    products, _ = ops.attention_products(rows, query, key, 1.0)
    assert products[:, 0, 0].tolist() == pytest.approx([2.0**26 + 3.5 * (tokens - 1)] * 2, rel=1e-6)


@pytest.mark.parametrize('size', [1e2, 1e4])
def test_great_scores(route, size):
    """Softmax nearly one-hot: nothing overflows, nothing leaks past the diagonal.

    A score is a float32 sum; its rounding, a share of its size, is the error of the logarithm.
    """
    rows, query, key, _ = attention_inputs(tokens=120, depth=16)
    scale = size / 16
    ours = ops.attention_products(rows, query, key, scale)
    theirs = expected(rows, query, key, scale)
    greatest = float((query.abs() @ key.abs().repeat_interleave(2, 0).mT).max()) * scale
    error = greatest * torch.finfo(torch.float32).eps
    for one, other in zip(ours, theirs, strict=True):
        assert ((one - other).abs() <= (3e-6 + error) * other + 1e-30).all()
    only = torch.zeros(1, 120)
    only[0, 40] = 1
    products, _ = ops.attention_products(only, query, key, scale)
    assert (products[..., 41:] == 0).all()


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_no_number_is_seen(route, value):
    rows, query, key, scale = attention_inputs(tokens=60)
    query[1, 17, 3] = value
    products, certainty = ops.attention_products(rows, query, key, scale)
    assert products.isfinite().all(-1).all(-1).tolist() == [True, False, True, True]
    assert certainty.isfinite().tolist() == [True, False, True, True]


def test_gradients_are_not_recorded(route):
    inputs = attention_inputs()
    learned = [one.requires_grad_() for one in inputs[:3]]
    assert not any(one.requires_grad for one in ops.attention_products(*learned, inputs[3]))


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'rows': torch.zeros(3, 9)}, r'rows must be \[O, 8\], got \[3, 9\]'),
        ({'rows': torch.zeros(8)}, r'rows must be \[O, 8\], got \[8\]'),
        ({'key': torch.zeros(3, 8, 5)}, '4 query heads cannot share 3 key heads evenly'),
        ({'key': torch.zeros(0, 8, 5)}, '4 query heads cannot share 0 key heads evenly'),
        (
            {'key': torch.zeros(2, 7, 5)},
            r'query and key must be \[H, N, D\] and \[G, N, D\], got \[4, 8, 5\] and \[2, 7, 5\]',
        ),
    ],
)
def test_refuses(route, change, sentence):
    arguments = {'rows': torch.zeros(3, 8), 'query': torch.zeros(4, 8, 5), 'key': torch.zeros(2, 8, 5)}
    with pytest.raises(ValueError, match=sentence):
        ops.attention_products(**(arguments | change), scale=1.0)


CAPABILITIES = ('default', 'avx2', 'avx512')
ERRORS = """
import torch
from samples import attention_inputs
from test_attention_products import expected
from atss_ext import ops

def error(**sizes):
    inputs = attention_inputs(**sizes)
    pairs = zip(ops.attention_products(*inputs), expected(*inputs))
    return max(float(((one - other).abs() / other).nan_to_num(0).max()) for one, other in pairs)

print(torch.backends.cpu.get_cpu_capability(), max(error(tokens=n, objects=5) for n in (1, 16, 47, 97, 333)))
"""


def test_every_width_of_vectors():
    """torch's own switch, ATEN_CPU_CAPABILITY, chooses ours too: all that this processor has are tried."""
    best = torch.backends.cpu.get_cpu_capability().lower()
    here = CAPABILITIES[: CAPABILITIES.index(best) + 1] if best in CAPABILITIES else CAPABILITIES[:1]
    root = Path(__file__).resolve().parents[2]
    said = set()
    for capability in here:
        path = os.pathsep.join([str(root), str(Path(__file__).parent)])
        environment = {**os.environ, 'PYTHONPATH': path, 'ATEN_CPU_CAPABILITY': capability}
        done = subprocess.run(
            [sys.executable, '-c', ERRORS], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        name, error = done.stdout.rsplit(maxsplit=1)
        said.add(name)
        assert float(error) < 3e-6, (capability, error)
    assert len(said) == len(here)
