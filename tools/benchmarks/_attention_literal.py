"""The opponents of the attention flow: the paper's equations with whole matrices, layer by layer.

All heads' S of one layer is held at a time: that of 32 layers would not fit. Both give the rows of F^L, the
columns of F scaled at each layer, as the defaults of atss_ext.vlsam.attention.FlowOptions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from atss_ext.vlsam.protocols import QueryKey


def literal_rows(layers: Sequence[QueryKey], weights: Tensor, dtype: torch.dtype) -> Tensor:
    """As the equations read, one after the other.

    Args:
        layers: L.
        weights: [O, N].
        dtype: everything is computed in it.

    Returns:
        [O, N]
    """
    tokens = weights.size(1)
    identity = torch.eye(tokens, dtype=dtype)
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    columns = torch.arange(1, tokens + 1, dtype=dtype) / tokens
    flow = torch.zeros(tokens, tokens, dtype=dtype)
    for query, key, scale in layers:
        scores = query.to(dtype) @ key.to(dtype).mT * scale
        similarity = scores.masked_fill(future, -torch.inf).softmax(-1)  # S [H, N, N]
        head_weight = similarity.amax(-1).mean(-1)  # W [H]
        aggregated = (similarity * head_weight[:, None, None]).mean(0)  # S' [N, N]
        flow = (identity + aggregated) @ (identity + flow) * columns
    return weights.to(dtype) @ flow


def tuned_rows(layers: Sequence[QueryKey], weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The same matrices, written for speed: memory is taken once, everything happens in place.

    Whoever knows PyTorch well gets so far without another algorithm.
    """
    heads, tokens, _ = layers[0].query.shape
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu_(1)
    columns = torch.arange(1, tokens + 1, dtype=dtype) / tokens
    similarity = torch.empty(heads, tokens, tokens, dtype=dtype)
    aggregated, flow, product = (torch.zeros(tokens, tokens, dtype=dtype) for _ in range(3))
    for query, key, scale in layers:
        torch.matmul(query.to(dtype) * scale, key.to(dtype).mT, out=similarity)
        similarity.masked_fill_(future, -torch.inf)
        torch.softmax(similarity, -1, out=similarity)
        head_weight = similarity.amax(-1).mean(-1) / heads
        torch.mv(similarity.view(heads, -1).mT, head_weight, out=aggregated.view(-1))
        aggregated.diagonal().add_(1)
        flow.diagonal().add_(1)
        torch.mm(aggregated, flow, out=product)
        torch.mul(product, columns, out=flow)
    return weights.to(dtype) @ flow
