"""The attention flow in the paper's equations, with whole matrices in float64, and layers to try it on."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from atss_ext.ops import native
from atss_ext.vlsam.attention import FlowOptions
from atss_ext.vlsam.protocols import Layer, Probabilities, QueryKey

FLOWS = ('regularised', 'plain', 'none')
HEADS = ('mean-max', 'uniform')
SCALINGS = ('flow', 'attention', 'once')
EVERY = [FlowOptions(*words) for words in itertools.product(FLOWS, HEADS, SCALINGS)]
TOLERANCE = 1e-5


def literal_similarity(layer: Layer) -> Tensor:
    """S of a layer, float64 [H, N, N]."""
    if isinstance(layer, Probabilities):
        return layer.values.double()
    query, key = layer.query.double(), layer.key.double()
    served = len(query) // len(key)
    similarity = []
    for head in range(len(query)):
        scores = query[head] @ key[head // served].T * layer.scale
        future = torch.ones_like(scores).triu(1) == 1
        similarity.append(scores.masked_fill(future, -torch.inf).softmax(-1))
    return torch.stack(similarity)


def literal_flow(layers: Sequence[Layer], options: FlowOptions) -> Tensor:
    """F^L, float64 [N, N]; for 'none' S' of the last layer.

    S[i, j, h, l]; W[h, l] = mean_i max_j S; S'[i, j, l] = mean_h (S W);
    F^0 = 0; F^l[i, j] = sum_k (I[i, k] + S'^l[i, k]) (I[k, j] + F^(l-1)[k, j]);
    a column of unmasked length L0 times 1 - (L0 - 1) / N.
    """
    if options.layers:
        layers = layers[options.layers[0] : options.layers[1]]
    tokens = layers[0][0].size(1)
    identity = torch.eye(tokens, dtype=torch.float64)
    unmasked = torch.tensor([tokens - j for j in range(tokens)], dtype=torch.float64)
    column = 1 - (unmasked - 1) / tokens
    flow = torch.zeros_like(identity)
    for layer in layers:
        similarity = literal_similarity(layer)
        weight = similarity.amax(dim=2).mean(dim=1)
        if options.heads == 'uniform':
            weight = torch.ones_like(weight)
        aggregated = (similarity * weight[:, None, None]).mean(dim=0)
        regularised = options.flow == 'regularised'
        if options.flow != 'none' and regularised and options.scaling == 'attention':
            aggregated = aggregated * column
        flow = torch.einsum('ik,kj->ij', identity + aggregated, identity + flow)
        if regularised and options.scaling == 'flow':
            flow = flow * column
    if options.flow == 'none':
        return aggregated
    return flow * column if regularised and options.scaling == 'once' else flow


def make_layers(
    count: int = 3, tokens: int = 61, heads: int = 6, groups: int = 2, depth: int = 8, seed: int = 0
) -> list[Layer]:
    """Scores of some units, so that heads and tokens differ."""
    draw = torch.Generator().manual_seed(seed)
    return [
        QueryKey(
            torch.randn(heads, tokens, depth, generator=draw) * 2,
            torch.randn(groups, tokens, depth, generator=draw),
            depth**-0.5,
        )
        for _ in range(count)
    ]


def as_probabilities(layers: Sequence[Layer]) -> list[Layer]:
    return [Probabilities(literal_similarity(layer).float()) for layer in layers]


def one_hot(rows: Sequence[int], tokens: int) -> Tensor:
    return torch.eye(tokens)[list(rows)]


def mixed_weights(tokens: int) -> Tensor:
    """Single rows, the first and the last among them, a mean of two, and all rows."""
    weights = one_hot([tokens - 1, 0, tokens // 2, tokens // 3, 0], tokens)
    weights[3] += weights[2]
    weights[4] = torch.linspace(0, 1, tokens)
    return weights


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """Relative, entry by entry; what the causal mask makes zero is zero."""
    assert ours.dtype == torch.float32
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs() <= tolerance * theirs.abs()).all()


ROUTES = ('native', 'fallback')


def take_route(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on with the compiled library, or without."""
    if name == 'fallback':
        monkeypatch.setattr(native, 'DEVICES', frozenset())
    else:
        assert native.available()
