"""The small vision-language model before training, and the heads that teach its eyes."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, LAYERS, HEADS = 128, 4, 4


def build_model(vocabulary_size: int, image_size: int = 64, patch_size: int = 8) -> Any:
    """A ``LlavaForConditionalGeneration`` of about 1.4 million random parameters: CLIP's eyes, Llama's words.

    Args:
        vocabulary_size: tokens.
        image_size: side of the images, pixels.
        patch_size: side of a patch, pixels.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=image_size,
        patch_size=patch_size,
    )
    text = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=1024,
        initializer_range=0.05,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy='default',
        image_seq_length=(image_size // patch_size) ** 2,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    place = model.model.vision_tower.get_parameter(_position_name(model.model.vision_tower))
    with torch.no_grad():
        place[1:] = 0.5 * _plane_waves(image_size // patch_size, WIDTH)
    return model


def _position_name(tower: nn.Module) -> str:
    return next(name for name, _ in tower.named_parameters() if name.endswith('position_embedding.weight'))


def _plane_waves(side: int, width: int) -> Tensor:
    """[side ** 2, width]: sines and cosines of row and column; neighbours are alike from the start."""
    angles = torch.arange(side)[:, None] * math.pi / side * 2.0 ** torch.linspace(-1, 3, width // 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, width / 2]
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width)


class PatchHeads(nn.Module):
    """What each image token shows and which place it has in the sentence: two linear heads for training only.

    Args:
        width: of the tokens.
        categories: of objects.
        most: objects of a scene at most.
    """

    def __init__(self, width: int, categories: int, most: int) -> None:
        super().__init__()
        self.category = nn.Linear(width, categories + 1)
        self.order = nn.Linear(width, most + 1)

    def forward(self, tokens: Tensor, categories: Tensor, orders: Tensor) -> Tensor:
        """The loss of P tokens.

        Args:
            tokens: [P, width].
            categories: int64 [P], 0 background, -100 unsure.
            orders: int64 [P], the object's place in the sentence from 1, 0 background, -100 unsure.
        """
        loss = functional.cross_entropy(self.category(tokens), categories)
        return loss + functional.cross_entropy(self.order(tokens), orders)
