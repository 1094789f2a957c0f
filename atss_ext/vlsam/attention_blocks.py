"""A layer's attention of the tokens that count, a few heads at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atss_ext import ops
from atss_ext.ops.reference.attention import add_products, block_of
from atss_ext.vlsam.protocols import Layer, Probabilities, VlsamError

# Heads of a CPU's block are shared out to its threads.
_LEAST_HEADS = 4


@dataclass(frozen=True)
class Selection:
    """The tokens that count: n of the N.

    Attributes:
        index: their places, a slice where they are neighbours, which costs no copy.
        count: n.
    """

    index: slice | Tensor
    count: int

    @classmethod
    def of(cls, valid: Tensor | None, tokens: int) -> 'Selection':
        """Those of ``valid`` (bool [N]), or all.

        Raises:
            VlsamError: none is left, or ``valid`` is not bool [N].
        """
        if valid is None:
            return cls(slice(0, tokens), tokens)
        if valid.shape != (tokens,) or valid.dtype != torch.bool:
            raise VlsamError(
                f'valid must be bool [{tokens}], one a token, but is {valid.dtype} {list(valid.shape)}.'
            )
        places = valid.nonzero().flatten()
        count = len(places)
        if not count:
            raise VlsamError(f'valid marks all {tokens} tokens as padding; at least one must count.')
        first, last = int(places[0]), int(places[-1])
        return cls(slice(first, last + 1) if last - first + 1 == count else places, count)

    def take(self, values: Tensor, dim: int, part: slice | None = None) -> Tensor:
        """The selected places of a dimension, or of those only a ``part``; a view where it can be."""
        start, stop = (part.start, part.stop) if part else (0, self.count)
        if isinstance(self.index, slice):
            return values.narrow(dim, self.index.start + start, stop - start)
        return values.index_select(dim, self.index[start:stop].to(values.device))

    def put_back(self, values: Tensor, tokens: int) -> Tensor:
        """Values [O, n] of the selected tokens among all: [O, N], zero elsewhere."""
        if self.count == tokens:
            return values
        result = values.new_zeros(len(values), tokens)
        index = self.index if isinstance(self.index, slice) else self.index.to(values.device)
        result[:, index] = values
        return result


def check_layers(layers: Sequence[Layer], tokens: int) -> None:
    """Refuse layers whose shapes do not belong together.

    Raises:
        VlsamError: no layer, a wrong shape, heads that cannot share keys, a sequence that is not N long.
    """
    if not layers:
        raise VlsamError('There is no layer; attention needs at least one.')
    for number, layer in enumerate(layers):
        problem = _problem(layer)
        if problem:
            raise VlsamError(f'Layer {number}: {problem}')
        length = layer[0].size(1)
        if length != tokens:
            raise VlsamError(
                f'Layer {number} has {length} tokens but the weights have {tokens}; '
                'both must be of the same sequence.'
            )


def _problem(layer: Layer) -> str | None:
    if isinstance(layer, Probabilities):
        shape = list(layer.values.shape)
        square = len(shape) == 3 and shape[0] and shape[1] == shape[2]
        return None if square else f'probabilities must be [H, N, N] but are {shape}.'
    query, key = list(layer.query.shape), list(layer.key.shape)
    if len(query) != 3 or len(key) != 3 or query[1:] != key[1:] or not query[0]:
        return f'query and key must be [H, N, D] and [G, N, D] but are {query} and {key}.'
    if not key[0] or query[0] % key[0]:
        return f'{query[0]} query heads cannot share {key[0]} key heads evenly; G must divide H.'
    return None


def layer_products(rows: Tensor, layer: Layer, selection: Selection) -> Iterator[ops.AttentionProducts]:
    """Rows times the attention of each head, a few heads at a time, in their order.

    Args:
        rows: float32 [O, n], on the layer's device.
        layer: one layer.
        selection: tokens that attend and are attended.

    Yields:
        what some heads make of the rows.
    """
    if isinstance(layer, Probabilities):
        values = layer.values
        for heads in _parts(len(values), _heads_at_once(values.device, len(values))):
            yield _given(rows, values[heads], selection)
        return
    query, key, scale = layer
    group = len(query) // len(key)
    for heads in _parts(len(key), -(-_heads_at_once(query.device, len(query)) // group)):
        q = selection.take(query[heads.start * group : heads.stop * group], 1)
        yield ops.attention_products(rows, q, selection.take(key[heads], 1), scale)


def _given(rows: Tensor, values: Tensor, selection: Selection) -> ops.AttentionProducts:
    """The same from probabilities [h, N, N] that are there already, a block of queries at a time."""
    heads, count = len(values), selection.count
    products, certainty = rows.new_zeros(heads, *rows.shape), rows.new_zeros(heads)
    for part in reversed(list(_parts(count, block_of(values.device, heads, count)))):
        seen = selection.take(selection.take(values, 1, part), 2).flip(1).float()
        add_products(products, certainty, rows[:, part], seen)
    return ops.AttentionProducts(products, certainty / count)


def _heads_at_once(device: torch.device, heads: int) -> int:
    return max(_LEAST_HEADS, 2 * torch.get_num_threads()) if device.type == 'cpu' else heads


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
