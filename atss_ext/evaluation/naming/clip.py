"""CLIP's text encoder."""

from functools import cached_property
from typing import Any

from torch import Tensor

from atss_ext.evaluation.naming.encoder import BatchedEncoder, choose_device, identity, tokens_of
from atss_ext.registry import TASK_UTILS
from atss_ext.vlsam.hub import check_folder, fetch, require_transformers


@TASK_UTILS.register_module()
class ClipEncoder(BatchedEncoder):
    """CLIP's text encoder of transformers (Radford et al. 2021); the half that sees images is let go of.

    Nothing is loaded before the first text. Weights are read from safetensors alone.

    Args:
        model: a CLIP of the Hugging Face hub, or a folder. GenerateU and VL-SAM took ViT-L/14 at 336 pixels,
            whose text encoder is another training's than the default's.
        template: the text around a name; GenerateU's by default, 'a photo of a {}' is CLIP's own.
        device: 'auto' takes a GPU where there is one.
        batch_size: texts a step.
        revision: of the hub's repository; None is its main branch.

    Raises:
        ValueError: the template has no place for a name, or the batch size is below 1.
        VlsamError: transformers, the model or the device is not there (when first used).
    """

    def __init__(
        self,
        model: str = 'openai/clip-vit-large-patch14',
        template: str = 'a {}',
        device: str = 'auto',
        batch_size: int = 256,
        revision: str | None = None,
    ) -> None:
        super().__init__(model, template, device, batch_size)
        self.revision = revision

    @cached_property
    def key(self) -> str:
        """Model, revision and template."""
        return f'clip {identity(self.model)} {self.revision} {self.template}'

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        transformers = require_transformers('ClipEncoder')
        check_folder(self.model, 'openai/clip-vit-large-patch14')
        device = choose_device(self.device)
        options = {'revision': self.revision} if self.revision else {}
        tokenizer = fetch(transformers.AutoTokenizer.from_pretrained, self.model, 'tokenizer', options)
        loader = transformers.CLIPModel.from_pretrained
        model = fetch(loader, self.model, 'model', {**options, 'use_safetensors': True}).eval()
        # No image is ever shown to it.
        del model.vision_model, model.visual_projection
        return tokenizer, model.to(device), device

    def _encode(self, texts: list[str]) -> Tensor:
        tokenizer, model, device = self._parts
        limit = model.config.text_config.max_position_embeddings
        inputs = tokens_of(tokenizer, texts, self.template, limit, device)
        pooled = model.text_model(
            input_ids=inputs['input_ids'], attention_mask=inputs['attention_mask']
        ).pooler_output  # [n, hidden]
        found: Tensor = model.text_projection(pooled)
        return found
