"""Rows of causal attention, a block of the attention at a time.

Letters: H heads, G heads of keys, N tokens, D channels, O objects.
"""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

# Queries of a block: enough to keep a product of matrices busy, few enough that little of it lies past the
# diagonal.
_MOST_QUERIES = 256
# Scores of a block: what the caches of a few cores hold, and what keeps a GPU busy.
_CPU_SCORES = 1 << 21
_GPU_SCORES = 1 << 26


class AttentionProducts(NamedTuple):
    """What each head's attention makes of the rows.

    Attributes:
        products: float32 [H, O, N], rows times softmax.
        certainty: float32 [H], the mean over the queries of their greatest probability.
    """

    products: Tensor
    certainty: Tensor


def attention_products(
    rows: Tensor, query: Tensor, key: Tensor, scale: float, queries: int | None = None
) -> AttentionProducts:
    """Rows times the causal softmax of every head, as :func:`atss_ext.ops.attention_products`.

    The softmax of a block of queries is made at a time. The last queries come first, and the last of them:
    where weight piles up on early tokens, a float32 sum that began there would lose what the others add, each
    less than half a unit in the last place.

    Args:
        rows: [O, N].
        query: [H, N, D].
        key: [G, N, D], G dividing H.
        scale: of the scores.
        queries: of a block; None chooses for the device.
    """
    heads, tokens, depth = query.shape
    group = heads // len(key)
    queries = queries or block_of(query.device, heads, tokens)
    query, key, rows = query.unflatten(0, (len(key), group)), key.float(), rows.float()
    memory = [query.new_empty(heads * queries * width, dtype=torch.float32) for width in (tokens, depth)]
    future = rows.new_full((queries, queries), -torch.inf).triu_(1).flip(0)
    products, certainty = rows.new_zeros(heads, *rows.shape), rows.new_zeros(heads)
    for start in reversed(range(0, tokens, queries)):
        stop = min(start + queries, tokens)
        count = stop - start
        some = _view(memory[1], len(key), group * count, depth)
        some.unflatten(1, (group, count)).copy_(query[:, :, start:stop].flip(2))
        scores = _view(memory[0], len(key), group * count, stop)
        torch.baddbmm(scores, some, key[:, :stop].mT, beta=0, alpha=scale, out=scores)
        scores = scores.view(heads, count, stop)
        scores[..., start:] += future[queries - count :, :count]
        torch.softmax(scores, -1, out=scores)
        add_products(products, certainty, rows[:, start:stop], scores)
    return AttentionProducts(products, certainty / max(tokens, 1))


def block_of(device: torch.device, heads: int, tokens: int) -> int:
    """How many queries a block has whose scores [heads, queries, tokens] are held at a time."""
    scores = _CPU_SCORES if device.type == 'cpu' else _GPU_SCORES
    return max(1, min(scores // max(heads * tokens, 1), _MOST_QUERIES, tokens))


def add_products(products: Tensor, certainty: Tensor, rows: Tensor, probabilities: Tensor) -> None:
    """Adds what a block gives.

    Args:
        products: [H, O, N] to add to.
        certainty: [H] to add each query's greatest probability to.
        rows: [O, n], the columns of the block's queries.
        probabilities: [H, n, C] over the first C keys, the last query first.
    """
    heads, _, keys = probabilities.shape
    products[..., :keys].baddbmm_(rows.flip(1).expand(heads, -1, -1), probabilities)
    certainty += probabilities.amax(-1).sum(-1)


def _view(memory: Tensor, *shape: int) -> Tensor:
    """The beginning of a flat tensor in another shape."""
    return memory[: prod(shape)].view(shape)
