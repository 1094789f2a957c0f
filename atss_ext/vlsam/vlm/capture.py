"""What a model's attention is made of, kept while the model computes as ever.

transformers asks a table for the attention function a config names. Ours hands everything on to sdpa and,
inside of :func:`capturing`, keeps queries and keys on the way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from atss_ext.vlsam.protocols import QueryKey, VlsamError

NAME = 'atss_ext_capture'
# What changes a layer's weights beyond softmax(scale * q k): attention flow would not know of it.
_EXTRAS = ('softcap', 's_aux', 'position_bias')


class Recorder:
    """The layers of one forward pass over one sequence.

    Args:
        device: where queries and keys are kept; None is where the first layer's are.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.device = device
        self._layers: dict[int, QueryKey] = {}
        self._causal: Tensor | None = None

    def layers(self, count: int) -> list[QueryKey]:
        """The layers, first to last.

        Args:
            count: how many there should be.

        Raises:
            VlsamError: some are missing.
        """
        missing = sorted(set(range(count)) - set(self._layers))
        if missing or len(self._layers) != count:
            raise VlsamError(
                f'attention of {len(self._layers)} layers was seen where the model has {count} (missing: '
                f'{missing[:8]}), so some do not attend by softmax or in another place; take another model.'
            )
        return [self._layers[index] for index in range(count)]

    def record(
        self, module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, options: dict[str, Any]
    ) -> None:
        """Keep one layer.

        Args:
            module: the attention module, which knows its ``layer_idx``.
            query: [1, H, N, D], after the rotary embedding.
            key: [1, G, N, D], not repeated for GQA.
            mask: bool or float [1, 1 or H, N, N], or None.
            options: what else the attention function was given.

        Raises:
            VlsamError: attention that the flow cannot express.
        """
        index = getattr(module, 'layer_idx', None)
        if index is None or index in self._layers:
            raise VlsamError(
                f'{type(module).__name__} attends as layer {index}, which is '
                f'{"no layer of the text model" if index is None else "called twice in one pass"}; attention '
                'flow needs every layer once, take another model.'
            )
        for name in _EXTRAS:
            if options.get(name) is not None:
                raise VlsamError(
                    f'layer {index} attends with {name}, which attention flow cannot express; take another '
                    'model.'
                )
        self._check_causal(index, module, query, key, mask, options.get('is_causal'))
        scale = options.get('scaling')
        self.device = query.device if self.device is None else self.device
        self._layers[index] = QueryKey(
            query[0].detach().to(self.device),
            key[0].detach().to(self.device),
            query.size(-1) ** -0.5 if scale is None else float(scale),
        )

    def _check_causal(
        self,
        index: int,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None,
        is_causal: bool | None,
    ) -> None:
        """Refuse a layer in which a token does not see exactly itself and all before it."""
        length = query.size(2)
        if query.size(0) != 1 or key.size(2) != length:
            raise VlsamError(
                f'layer {index} saw {query.size(0)} sequences, {length} queries and {key.size(2)} keys; '
                'attention is read from one whole sequence without a cache.'
            )
        if mask is None:
            causal = getattr(module, 'is_causal', True) if is_causal is None else is_causal
            causal = bool(causal) or length == 1
        elif mask is self._causal:
            return
        else:
            visible = mask if mask.dtype == torch.bool else mask == 0
            lower = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
            causal = visible.shape[-2:] == lower.shape and torch.equal(visible, lower.expand_as(visible))
            self._causal = mask if causal else None  # usually the same for every layer
        if not causal:
            raise VlsamError(
                f'layer {index} lets tokens see other ones than themselves and all before them (a sliding '
                f'window shorter than the {length} tokens, or attention in both directions), which attention '
                'flow cannot express; make the prompt shorter by image_options, or take another model.'
            )


# The recorder of this thread's pass: a model that runs in another thread meanwhile is not recorded.
_recorder: ContextVar[Recorder | None] = ContextVar('atss_ext_recorder', default=None)


@contextmanager
def capturing(model: Any, device: torch.device | str | None = None) -> Iterator[Recorder]:
    """Let the text model's attention be recorded in here; the vision tower's is left alone.

    Args:
        model: of transformers, with a ``text_config``.
        device: where queries and keys are kept; None is where they come up.

    Yields:
        the recorder, filled by one forward pass. Afterwards, errors or not, the model attends as before.
    """
    _register()
    before = model.config.text_config._attn_implementation
    recorder = Recorder(device)
    token = _recorder.set(recorder)
    try:
        model.set_attn_implementation({'text_config': NAME})
        yield recorder
    finally:
        _recorder.reset(token)
        model.set_attn_implementation({'text_config': before})


def _register() -> None:
    """Make the name known to transformers; without the mask of sdpa, padding would be ignored silently."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: sdpa, with a look at what goes in."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    recorder = _recorder.get()
    if recorder is not None:
        recorder.record(module, query, key, attention_mask, options)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
