"""For models of one's own that give their attention ready made."""

from collections.abc import Sequence

from torch import Tensor

from atss_ext.vlsam.protocols import Probabilities, VlsamError


def probabilities(attentions: Sequence[Tensor]) -> list[Probabilities]:
    """Turn ``output_attentions=True`` of one forward pass into the layers of a :class:`Reading`.

    It holds L * H * N * N numbers at once: where a model's queries and keys can be had,
    :class:`protocols.QueryKey` needs a fraction of it.

    Args:
        attentions: L tensors [1, H, N, N] or [H, N, N] of one sequence, prompt and answer.

    Raises:
        VlsamError: no layers, or a tensor of another shape.
    """
    if not attentions:
        raise VlsamError(
            'the model gave no attentions; load it with attn_implementation="eager", other implementations '
            'do not keep them.'
        )
    layers = []
    for number, values in enumerate(attentions):
        shape = tuple(values.shape)
        if len(shape) == 4 and shape[0] == 1:
            values = values[0]
        if values.dim() != 3 or values.size(1) != values.size(2):
            raise VlsamError(
                f'attention of layer {number} must be [1, H, N, N] or [H, N, N], but is {list(shape)}; '
                'pass one sequence, in one forward pass without a cache.'
            )
        layers.append(Probabilities(values))
    return layers
