"""The attention flow against the paper's equations, written out with whole matrices in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_attention import (
    EVERY,
    FLOWS,
    ROUTES,
    as_probabilities,
    assert_near,
    literal_flow,
    make_layers,
    mixed_weights,
    one_hot,
    take_route,
)
from torch import Tensor

from atss_ext.ops import native
from atss_ext.vlsam.attention import FlowOptions, attention_rows
from atss_ext.vlsam.protocols import Layer, Probabilities, QueryKey


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch) -> str:
    """Runs a test with the compiled library, and without."""
    take_route(request.param, monkeypatch)
    return request.param


@pytest.mark.parametrize('options', EVERY, ids=lambda o: f'{o.flow}-{o.heads}-{o.scaling}')
@pytest.mark.parametrize('kind', ['own keys', 'shared keys', 'probabilities', 'mixed', 'several blocks'])
def test_equals_the_literal_flow(route, kind, options):
    sizes = {'own keys': {'groups': 6}, 'several blocks': {'tokens': 600, 'count': 2}}
    layers = make_layers(**sizes.get(kind, {}))
    if kind == 'probabilities':
        layers = as_probabilities(layers)
    elif kind == 'mixed':
        layers[1:2] = as_probabilities(layers[1:2])
    weights = mixed_weights(layers[0][0].size(1))
    ours = attention_rows(layers, weights, options)
    assert_near(ours, weights.double() @ literal_flow(layers, options))


def test_the_defaults_are_the_papers():
    assert FlowOptions() == FlowOptions('regularised', 'mean-max', 'flow', None)
    layers, weights = make_layers(), mixed_weights(61)
    assert torch.equal(attention_rows(layers, weights), attention_rows(layers, weights, FlowOptions()))


def test_literal_values():
    """Two tokens, one head, S = [[1, 0], [1/4, 3/4]], so W = (1 + 3/4) / 2 = 7/8.

    S' = [[7/8, 0], [7/32, 21/32]], column scaling (1/2, 1). Two such layers, by hand.
    """
    layers = [Probabilities(torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]))] * 2
    first = [[15 / 8, 0], [7 / 32, 53 / 32]]  # I + S' = F^1
    plain = [
        [15 / 8 * 23 / 8, 0],
        [7 / 32 * 23 / 8 + 53 / 32 * 7 / 32, 53 / 32 * 85 / 32],
    ]
    flow = [
        [15 / 8 * 31 / 16 / 2, 0],
        [(7 / 32 * 31 / 16 + 53 / 32 * 7 / 64) / 2, 53 / 32 * 85 / 32],
    ]  # of F^1 R = [[15/16, 0], [7/64, 53/32]]
    in_attention = [[23 / 16 * 39 / 16, 0], [7 / 64 * 39 / 16 + 53 / 32 * 7 / 64, 53 / 32 * 85 / 32]]
    expected = {
        FlowOptions('plain', layers=(0, 1)): first,
        FlowOptions('plain'): plain,
        FlowOptions(): flow,
        FlowOptions(scaling='attention'): in_attention,
        FlowOptions(scaling='once'): [[one / 2, two] for one, two in plain],
        FlowOptions('none'): [[7 / 8, 0], [7 / 32, 21 / 32]],
        FlowOptions('none', 'uniform'): [[1, 0], [0.25, 0.75]],
    }
    for options, values in expected.items():
        ours = attention_rows(layers, torch.eye(2), options)
        torch.testing.assert_close(ours, torch.tensor(values), rtol=1e-6, atol=0)


@pytest.mark.parametrize('options', EVERY[:6] + EVERY[8:9], ids=lambda o: f'{o.flow}-{o.heads}-{o.scaling}')
def test_many_layers_and_tokens(route, options):
    """Without regularisation F grows up to 2^L on the first tokens, and small terms must not be lost."""
    layers = make_layers(32, 400, 2, 1, 16)
    weights = one_hot([399, 250, 0], 400)
    assert_near(attention_rows(layers, weights, options), weights.double() @ literal_flow(layers, options))


shapes = st.fixed_dictionaries(
    {
        'count': st.integers(1, 4),
        'tokens': st.integers(1, 70),
        'groups': st.integers(1, 3),
        'depth': st.integers(1, 9),
        'seed': st.integers(0, 99),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    sizes=shapes,
    served=st.integers(1, 3),
    options=st.sampled_from(EVERY),
    given_layers=st.lists(st.booleans(), min_size=4, max_size=4),
    data=st.data(),
)
def test_any_shape(sizes, served, options, given_layers, data):
    layers = make_layers(heads=sizes['groups'] * served, **sizes)
    layers = [
        as_probabilities([layer])[0] if ready else layer
        for layer, ready in zip(layers, given_layers, strict=False)
    ]
    tokens = sizes['tokens']
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)))
    valid[data.draw(st.integers(0, tokens - 1))] = True
    weights = torch.rand(3, int(valid.sum()), generator=torch.Generator().manual_seed(sizes['seed']))
    padded = torch.zeros(3, tokens)
    padded[:, valid] = weights
    short = [cut(layer, valid) for layer in layers]
    ours = attention_rows(layers, padded, options, valid)
    assert_near(ours[:, valid], weights.double() @ literal_flow(short, options))
    assert (ours[:, ~valid] == 0).all()


def cut(layer: Layer, valid: Tensor) -> Layer:
    """The layer of the sequence without padding."""
    if isinstance(layer, Probabilities):
        return Probabilities(layer.values[:, valid][:, :, valid])
    return QueryKey(layer.query[:, valid], layer.key[:, valid], layer.scale)


def padded_layer(layer: Layer, valid: Tensor) -> Layer:
    """The layer within a longer sequence whose other tokens hold NaN."""
    tokens = len(valid)
    if isinstance(layer, Probabilities):
        values = torch.full((len(layer.values), tokens, tokens), torch.nan)
        values[:, valid.nonzero(), valid.nonzero().T] = layer.values
        return Probabilities(values)
    sides = []
    for short in (layer.query, layer.key):
        long = torch.full((len(short), tokens, short.size(2)), torch.nan)
        long[:, valid] = short
        sides.append(long)
    return QueryKey(*sides, layer.scale)


PADDINGS = {
    'left': [False] * 9 + [True] * 61,
    'right': [True] * 61 + [False] * 9,
    'both': [False] * 5 + [True] * 61 + [False] * 4,
    'holes': [True, False] * 9 + [True] * 52,
    'none': [True] * 61,
}


@pytest.mark.parametrize('options', EVERY, ids=lambda o: f'{o.flow}-{o.heads}-{o.scaling}')
@pytest.mark.parametrize('side', PADDINGS)
@pytest.mark.parametrize('ready', [False, True], ids=['q and k', 'probabilities'])
def test_padding_changes_no_bit(route, side, ready, options):
    layers = as_probabilities(make_layers()) if ready else make_layers()
    weights, valid = mixed_weights(61), torch.tensor(PADDINGS[side])
    long = torch.zeros(len(weights), len(valid))
    long[:, valid] = weights
    ours = attention_rows([padded_layer(layer, valid) for layer in layers], long, options, valid)
    assert torch.equal(ours[:, valid], attention_rows(layers, weights, options))
    assert (ours[:, ~valid] == 0).all()


@pytest.mark.parametrize('options', EVERY[:3], ids=lambda o: o.scaling)
def test_other_objects_change_no_bit(options):
    """On the native route."""
    assert native.available()
    layers = make_layers(tokens=150)
    weights = torch.cat([mixed_weights(150), one_hot(range(60, 67), 150)])
    together = attention_rows(layers, weights, options)
    order = torch.randperm(len(weights))
    assert torch.equal(attention_rows(layers, weights[order], options), together[order])
    for number in range(len(weights)):
        alone = attention_rows(layers, weights[number : number + 1], options)
        assert torch.equal(alone[0], together[number])


def test_other_objects_round_otherwise_at_most(monkeypatch):
    """On PyTorch's products of matrices."""
    monkeypatch.setattr(native, 'DEVICES', frozenset())
    layers, weights = make_layers(tokens=150), mixed_weights(150)
    together = attention_rows(layers, weights)
    for number in range(len(weights)):
        assert_near(attention_rows(layers, weights[number : number + 1])[0], together[number], 1e-6)


@pytest.mark.parametrize('heads', [1, 3, 5, 99])
def test_how_many_heads_a_block_has_does_not_matter(route, heads, monkeypatch):
    layers, weights = make_layers(2), mixed_weights(61)
    mixed = [*layers, *as_probabilities(make_layers(1))]
    expected, expected_mixed = attention_rows(layers, weights), attention_rows(mixed, weights)
    monkeypatch.setattr('atss_ext.vlsam.attention_blocks._heads_at_once', lambda *_: heads)
    ours = attention_rows(layers, weights)
    if route == 'native':
        assert torch.equal(ours, expected)
    else:  # PyTorch may multiply another number of matrices in another way
        assert_near(ours, expected, 1e-6)
    # Ready-made probabilities are PyTorch's to multiply on either route.
    assert_near(attention_rows(mixed, weights), expected_mixed, 1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_float32(route, dtype):
    layers = [QueryKey(q.to(dtype), k.to(dtype), scale) for q, k, scale in make_layers(4, 100)]
    weights = mixed_weights(100)
    ours = attention_rows(layers, weights.to(dtype))
    upcast = [QueryKey(q.float(), k.float(), scale) for q, k, scale in layers]
    rounded = weights.to(dtype).float()
    assert torch.equal(ours, attention_rows(upcast, rounded))
    assert_near(ours, rounded.double() @ literal_flow(upcast, FlowOptions()))
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(attention_rows(layers, weights.to(dtype)), ours)


def test_half_precision_probabilities(route):
    layers = [Probabilities(layer.values.bfloat16()) for layer in as_probabilities(make_layers())]
    weights = mixed_weights(61)
    upcast = [Probabilities(layer.values.float()) for layer in layers]
    assert torch.equal(attention_rows(layers, weights), attention_rows(upcast, weights))


@pytest.mark.parametrize('part', [(0, 1), (1, 3), (2, 4), (0, 4)])
def test_a_slice_of_the_layers(part):
    layers, weights = make_layers(4), mixed_weights(61)
    for flow in FLOWS:
        options = FlowOptions(flow, layers=part)
        ours = attention_rows(layers, weights, options)
        assert_near(ours, weights.double() @ literal_flow(layers, options))
        assert torch.equal(ours, attention_rows(layers[slice(*part)], weights, FlowOptions(flow)))


def test_a_config_may_write_a_list():
    assert FlowOptions(layers=[2, 5]).layers == (2, 5)
    assert hash(FlowOptions(layers=[2, 5])) == hash(FlowOptions(layers=(2, 5)))


def test_gradients_are_not_recorded(route):
    layers = [QueryKey(q.requires_grad_(), k.requires_grad_(), scale) for q, k, scale in make_layers()]
    weights = mixed_weights(61).requires_grad_()
    assert not attention_rows(layers, weights).requires_grad
    ready = [Probabilities(layer.values.requires_grad_()) for layer in as_probabilities(make_layers())]
    assert not attention_rows(ready, weights).requires_grad


def test_no_objects(route):
    for layers in (make_layers(), as_probabilities(make_layers())):
        assert attention_rows(layers, torch.zeros(0, 61)).shape == (0, 61)
