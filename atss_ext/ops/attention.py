"""Rows of causal attention from q and k: native on the CPU, PyTorch elsewhere."""

import torch
from torch import Tensor

from atss_ext.ops import native, reference
from atss_ext.ops.reference import AttentionProducts, without_gradient

_OP = 'atss_ext::attention_products'
# A library built before the op came has none.
_KNOWN = native.available() and hasattr(torch.ops.atss_ext, 'attention_products')
# On a GPU PyTorch's own products of matrices serve as well; and one compiler builds no kernel.
_HAS_KERNEL = _KNOWN and torch._C._dispatch_has_kernel_for_dispatch_key(_OP, 'CPU')


def attention_products(rows: Tensor, query: Tensor, key: Tensor, scale: float) -> AttentionProducts:
    """Rows times the causal softmax of every head; the attention itself is never in memory.

    Query i sees the keys 0 to i. Of q and k only that half is multiplied. Everything is computed and summed
    up in float32, whatever the type of the arguments. No gradient flows.

    Args:
        rows: [O, N]; row o is multiplied from the left with each head's [N, N] softmax.
        query: [H, N, D].
        key: [G, N, D], G dividing H: each key head serves H / G neighbouring query heads.
        scale: factor of the scores, usually D ** -0.5.

    Returns:
        :class:`AttentionProducts`: products float32 [H, O, N]; certainty float32 [H], the mean over the
        queries of their greatest probability. The native route gives an object the same bits whatever others
        there are, and however many threads; PyTorch's products may round otherwise. NaN in a row of q or k
        makes NaN of what depends on it.

    Raises:
        ValueError: for shapes that do not fit.
    """
    rows, query, key = (without_gradient(values) for values in (rows, query, key))
    if _HAS_KERNEL and native.serves(query) and query.device.type == 'cpu':
        return AttentionProducts(*torch.ops.atss_ext.attention_products(rows, query, key, scale))
    _check(rows, query, key)
    return reference.attention_products(rows, query, key, scale)


def _check(rows: Tensor, query: Tensor, key: Tensor) -> None:
    """Refuses what the native op refuses, in its words."""
    q, k, r = list(query.shape), list(key.shape), list(rows.shape)
    if len(q) != 3 or len(k) != 3 or q[1:] != k[1:] or not q[2]:
        raise ValueError(f'query and key must be [H, N, D] and [G, N, D], got {q} and {k}')
    if not k[0] or q[0] % k[0]:
        raise ValueError(f'{q[0]} query heads cannot share {k[0]} key heads evenly')
    if len(r) != 2 or r[1] != q[1]:
        raise ValueError(f'rows must be [O, {q[1]}], got {r}')


def _fake(rows: Tensor, query: Tensor, key: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    heads = query.size(0)
    products = rows.new_empty((heads, *rows.shape), dtype=torch.float32)
    return products, rows.new_empty(heads, dtype=torch.float32)


if _KNOWN:
    torch.library.register_fake(_OP, _fake)
