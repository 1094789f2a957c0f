"""Attention flow: how much of each token an object's row has gathered through all layers.

N tokens, H heads, L layers, O objects. S[i, j, h, l] is the causal softmax of query i over the keys j
(Section 3.2 of the paper; its equations in the words of this file):

- head weight W[h, l] = mean_i max_j S[i, j, h, l];
- head aggregation S'[i, j, l] = mean_h W[h, l] S[i, j, h, l];
- attention flow F^0 = 0, F^l = (I + S'^l) (I + F^(l-1));
- regularisation: column j, which N - j queries see, is multiplied by 1 - (N - j - 1) / N = (j + 1) / N.

Only the objects' rows of F^L are needed, and a row costs vectors alone: with u_L = w (I + S'^L) and
u_(l-1) = u_l (I + S'^(l-1)) for a row w = e_i, or any weighted sum of rows,

    plain              w F^L = u_L + u_(L-1) + ... + u_1
    'flow'             w F^L = u_L R + u_(L-1) R^2 + ... + u_1 R^L      F^l = (I + S'^l) (I + F^(l-1)) R
    'attention'        as plain, with S'^l R in the place of S'^l
    'once'             w F^L = (u_L + u_(L-1) + ... + u_1) R            R applied to F^L

where R is the diagonal matrix of the regularisation. The products u S' come head by head from q and k
(:func:`atss_ext.ops.attention_products`): as max_j S = exp(max - logsumexp) and W[h] is a factor of head h
alone, one pass gives both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from atss_ext.vlsam.attention_blocks import Selection, check_layers, layer_products
from atss_ext.vlsam.attention_maps import grid_map
from atss_ext.vlsam.protocols import Layer, VlsamError

__all__ = ['FlowOptions', 'attention_rows', 'grid_map']

Flow = Literal['regularised', 'plain', 'none']
Heads = Literal['mean-max', 'uniform']
Scaling = Literal['flow', 'attention', 'once']


@dataclass(frozen=True)
class FlowOptions:
    """How the attention of all layers and heads becomes one. The defaults are the paper's method.

    Attributes:
        flow: 'regularised'; 'plain', without the scaling of columns; 'none', the last layer's S' alone
            (the paper's naive attention).
        heads: 'mean-max', the paper's head weights; 'uniform', all heads count the same.
        scaling: where the regularisation applies, which the paper leaves open: to F at each layer ('flow'),
            to S' at each layer ('attention') or to F^L ('once').
        layers: (first, last + 1), the layers to use, the first of the model being 0; None uses all.

    Raises:
        ValueError: an unknown word, or layers that are no range.
    """

    flow: Flow = 'regularised'
    heads: Heads = 'mean-max'
    scaling: Scaling = 'flow'
    layers: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, words in (('flow', Flow), ('heads', Heads), ('scaling', Scaling)):
            value = getattr(self, name)
            if value not in get_args(words):
                known = ', '.join(map(repr, get_args(words)))
                raise ValueError(f'{name} must be one of {known}, but is {value!r}.')
        if self.layers is not None:
            whole = isinstance(self.layers, tuple | list) and all(isinstance(one, int) for one in self.layers)
            if not (whole and len(self.layers) == 2 and 0 <= self.layers[0] < self.layers[1]):
                raise ValueError(
                    f'layers must be (first, last + 1) with 0 <= first <= last, but is {self.layers}.'
                )
            object.__setattr__(self, 'layers', tuple(self.layers))  # configs may hold a list


@torch.no_grad()
def attention_rows(
    layers: Sequence[Layer],
    weights: Tensor,
    options: FlowOptions | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Weighted sums of rows of F^L, for all objects in one pass over the layers.

    Needs O(O N) memory and a block of attention, never N x N. Accumulates in float32 whatever the dtype of q
    and k. Padding neither attends nor is attended nor counted: the result is that of the sequence without it,
    bit for bit. The other objects change a row by float rounding at most; on the CPU, with the compiled
    library, not at all.

    Args:
        layers: L, from the first to the last; may lie on several devices.
        weights: [O, N], of row i in object o's sum: one_hot(i) gives row i itself.
        options: None for the paper's.
        valid: bool [N], False at padding; None where every token counts.

    Returns:
        float32 [O, N], on the device of the weights; zero at padding.

    Raises:
        VlsamError: shapes or layers that do not belong together, weights at padding, nothing but padding,
            attention that is not finite.
    """
    options = options or FlowOptions()
    if weights.dim() != 2:
        raise VlsamError(f'weights must be [O, N], a row an object, but are {list(weights.shape)}.')
    tokens = weights.size(1)
    used = _chosen(layers, options)
    check_layers(used, tokens)
    selection = Selection.of(valid, tokens)
    if valid is not None and bool(weights[:, ~valid.to(weights.device)].any()):
        raise VlsamError('weights name a row of padding; only tokens that are valid have one.')
    if not bool(weights.isfinite().all()):
        raise VlsamError('weights hold NaN or infinity; every weight must be a number.')
    result = _flow(used, selection.take(weights, 1).float(), options, selection)
    if not bool(result.isfinite().all()):
        raise VlsamError(
            'The attention flow is not finite: q, k or the probabilities hold NaN or infinity; '
            'run the model in bfloat16 or float32 if it overflows in float16.'
        )
    return selection.put_back(result, tokens)


def _chosen(layers: Sequence[Layer], options: FlowOptions) -> Sequence[Layer]:
    if options.layers is None:
        return layers
    first, stop = options.layers
    if stop > len(layers):
        raise VlsamError(
            f'layers ({first}, {stop}) reach past the last layer: the model has {len(layers)}, '
            f'so the end is {len(layers)} at most.'
        )
    return layers[first:stop]


def _flow(layers: Sequence[Layer], rows: Tensor, options: FlowOptions, selection: Selection) -> Tensor:
    """The recursion above for rows [O, n] of the selected tokens."""
    weighted = options.heads == 'mean-max'
    if options.flow == 'none':
        return _product(rows, layers[-1], weighted, selection)
    total = torch.zeros_like(rows)
    for depth, layer in enumerate(reversed(layers), 1):
        in_attention, in_term = _exponents(options, depth)
        rows = rows + _product(rows, layer, weighted, selection) * _columns(rows, in_attention)
        total += rows * _columns(rows, in_term)
    return total


def _exponents(options: FlowOptions, depth: int) -> tuple[int, int]:
    """The powers of R that S' and u get, ``depth`` layers from the end (the last has 1)."""
    if options.flow == 'plain':
        return 0, 0
    return {'flow': (0, depth), 'attention': (1, 0), 'once': (0, 1)}[options.scaling]


def _columns(rows: Tensor, exponent: int) -> Tensor:
    """The diagonal of a power of R, [n]; float64 until it is made, as a power multiplies rounding."""
    count = rows.size(1)
    share = torch.arange(1, count + 1, dtype=torch.float64) / count
    return (share**exponent).to(rows)


def _product(rows: Tensor, layer: Layer, weighted: bool, selection: Selection) -> Tensor:
    """Rows [O, n] times S' of a layer: [O, n]. Heads are added one by one, whatever their blocks."""
    home, rows = rows.device, rows.to(layer[0].device)
    total = torch.zeros_like(rows)
    for found in layer_products(rows, layer, selection):
        products = found.products * found.certainty[:, None, None] if weighted else found.products
        for product in products:
            total += product
    return (total / len(layer[0])).to(home)
