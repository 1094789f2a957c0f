"""What the attention flow needs of memory, and what it refuses."""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from literal_attention import ROUTES, as_probabilities, make_layers, mixed_weights, one_hot, take_route
from torch import Tensor

from atss_ext.vlsam.attention import FlowOptions, attention_rows
from atss_ext.vlsam.protocols import Layer, Probabilities, QueryKey, VlsamError


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch) -> str:
    """Runs a test with the compiled library, and without."""
    take_route(request.param, monkeypatch)
    return request.param


def allocations(call: Callable[[], object]) -> list[int]:
    """Bytes of every block the call takes from PyTorch's allocator, and minus those of each it gives back.

    Kernels in C++ take theirs from it too; the profiler follows the calling thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.profiler.profile(profile_memory=True) as profile:
            result = call()
    finally:
        torch.set_num_threads(threads)
    del result  # not before: it counts
    events = profile.profiler.kineto_results.events()
    return [event.nbytes() for event in events if event.name() == '[memory]']


MEMORY_KINDS = {
    'q and k': lambda layers: layers,
    'bfloat16': lambda layers: [QueryKey(q.bfloat16(), k.bfloat16(), scale) for q, k, scale in layers],
    'probabilities': lambda layers: [
        Probabilities(torch.rand(4, q.size(1), q.size(1)).bfloat16()) for q, _, _ in layers
    ],
}


@pytest.mark.parametrize('kind', MEMORY_KINDS)
@pytest.mark.parametrize('padded', [False, True], ids=['whole', 'padded'])
def test_memory_grows_with_n_alone(route, kind, padded, monkeypatch):
    """Four times the tokens take four times the memory at most; no block is a tenth of N x N."""
    monkeypatch.setattr('atss_ext.ops.reference.attention._CPU_SCORES', 1 << 14)
    peaks = []
    for tokens in (300, 1200):
        layers = MEMORY_KINDS[kind](make_layers(2, tokens, 4, 2, 4))
        weights = one_hot([tokens - 1, tokens // 2], tokens)
        valid = torch.arange(tokens) % 5 != 3 if padded else None
        if padded:
            weights[:, ~valid] = 0
        blocks = allocations(lambda call=(layers, weights, None, valid): attention_rows(*call))
        assert sum(blocks) == tokens * len(weights) * 4  # what is left is the result
        peaks.append(max(itertools.accumulate(blocks)))
        assert max(blocks) < 4 * tokens**2 / 10 or tokens == 300
    assert peaks[1] < 4.2 * peaks[0]
    assert peaks[1] < 4 * 1200**2 / 5


def test_layers_do_not_add_to_the_memory(route):
    peaks = []
    for count in (2, 16):
        layers = make_layers(count, 200)
        weights = one_hot([199], 200)
        blocks = allocations(lambda call=(layers, weights): attention_rows(*call))
        peaks.append(max(itertools.accumulate(blocks)))
    assert peaks[1] <= peaks[0]


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'flow': 'rollout'}, "flow must be one of 'regularised', 'plain', 'none', but is 'rollout'."),
        ({'heads': 'max'}, "heads must be one of 'mean-max', 'uniform', but is 'max'."),
        ({'scaling': None}, "scaling must be one of 'flow', 'attention', 'once', but is None."),
        (
            {'layers': (3, 3)},
            'layers must be (first, last + 1) with 0 <= first <= last, but is (3, 3).',
        ),
        ({'layers': (-2, 3)}, 'layers must be (first, last + 1) with 0 <= first <= last, but is (-2, 3).'),
        ({'layers': 3}, 'layers must be (first, last + 1) with 0 <= first <= last, but is 3.'),
        (
            {'layers': (0.0, 2.0)},
            'layers must be (first, last + 1) with 0 <= first <= last, but is (0.0, 2.0).',
        ),
        ({'layers': (1,)}, 'layers must be (first, last + 1) with 0 <= first <= last, but is (1,).'),
    ],
)
def test_options_refuse(arguments, sentence):
    with pytest.raises(ValueError) as caught:
        FlowOptions(**arguments)
    assert str(caught.value) == sentence


def refusal(layers: Sequence[Layer], weights: Tensor, *others: object) -> str:
    with pytest.raises(VlsamError) as caught:
        attention_rows(layers, weights, *others)
    return str(caught.value)


def test_refuses_layers_that_do_not_fit():
    layers, weights = make_layers(2, 7, 4, 2, 3), one_hot([6], 7)
    assert refusal([], weights) == 'There is no layer; attention needs at least one.'
    assert refusal(layers, one_hot([2], 9)) == (
        'Layer 0 has 7 tokens but the weights have 9; both must be of the same sequence.'
    )
    odd = QueryKey(layers[1].query, torch.zeros(3, 7, 3), 1.0)
    assert refusal([layers[0], odd], weights) == (
        'Layer 1: 4 query heads cannot share 3 key heads evenly; G must divide H.'
    )
    short = QueryKey(layers[1].query, torch.zeros(2, 6, 3), 1.0)
    assert refusal([layers[0], short], weights) == (
        'Layer 1: query and key must be [H, N, D] and [G, N, D] but are [4, 7, 3] and [2, 6, 3].'
    )
    assert refusal([Probabilities(torch.zeros(4, 7, 6))], weights) == (
        'Layer 0: probabilities must be [H, N, N] but are [4, 7, 6].'
    )
    assert refusal(layers, weights, FlowOptions(layers=(1, 3))) == (
        'layers (1, 3) reach past the last layer: the model has 2, so the end is 2 at most.'
    )


def test_refuses_weights_and_padding_that_do_not_fit():
    layers, weights = make_layers(2, 7, 4, 2, 3), one_hot([6], 7)
    assert refusal(layers, weights[0]) == 'weights must be [O, N], a row an object, but are [7].'
    assert refusal(layers, weights / 0) == 'weights hold NaN or infinity; every weight must be a number.'
    nothing = torch.zeros(7, dtype=torch.bool)
    assert refusal(layers, weights, None, nothing) == (
        'valid marks all 7 tokens as padding; at least one must count.'
    )
    assert refusal(layers, weights, None, torch.ones(6, dtype=torch.bool)) == (
        'valid must be bool [7], one a token, but is torch.bool [6].'
    )
    assert refusal(layers, weights, None, torch.ones(7)) == (
        'valid must be bool [7], one a token, but is torch.float32 [7].'
    )
    assert refusal(layers, weights, None, torch.arange(7) < 6) == (
        'weights name a row of padding; only tokens that are valid have one.'
    )


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
@pytest.mark.parametrize('ready', [False, True], ids=['q and k', 'probabilities'])
def test_refuses_attention_that_is_not_finite(route, value, ready):
    layers = make_layers(3)
    if ready:
        layers = as_probabilities(layers)
    layers[1][0][2, 30, 5] = value
    assert refusal(layers, mixed_weights(61)) == (
        'The attention flow is not finite: q, k or the probabilities hold NaN or infinity; '
        'run the model in bfloat16 or float32 if it overflows in float16.'
    )
