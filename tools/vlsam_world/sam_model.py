"""The small SAM before training, its processor, and its decoder for objects of many pictures at once."""

from typing import Any

import torch
from sam_prompts import Prompts
from torch import Tensor, nn

WIDTH, LAYERS, HEADS = 96, 4, 4
DECODER_WIDTH, DECODER_HEADS = 64, 4
WINDOW, GLOBAL_LAYERS = 8, (1, 3)
# Waves of a position, per half a picture: a prompt is then like what lies within some 8 pixels.
_FREQUENCY = 0.6
# Attention of a prompt is then a few times as high at its place as elsewhere.
_ALIGNED = 1.4


def build_sam(image_size: int = 64, patch_size: int = 4) -> Any:
    """A ``SamModel`` of about half a million random parameters, most of them in its vision tower.

    Args:
        image_size: side of the images, pixels.
        patch_size: side of a patch, pixels; mask logits have four values a side of each.

    Raises:
        ValueError: the image is no whole number of windows of attention.
    """
    from transformers import SamConfig, SamModel

    if patch_size < 1 or image_size % (patch_size * WINDOW):
        raise ValueError(
            f'image_size must be a multiple of {WINDOW} patches of {patch_size} pixels, but is {image_size}.'
        )
    vision = {
        'hidden_size': WIDTH,
        'mlp_dim': 5 * WIDTH // 2,
        'num_hidden_layers': LAYERS,
        'num_attention_heads': HEADS,
        'output_channels': DECODER_WIDTH,
        'image_size': image_size,
        'patch_size': patch_size,
        'window_size': WINDOW,
        'global_attn_indexes': list(GLOBAL_LAYERS),
        'num_pos_feats': DECODER_WIDTH // 2,
        'use_rel_pos': False,
        'initializer_range': 0.05,
    }
    prompts = {'hidden_size': DECODER_WIDTH, 'image_size': image_size, 'patch_size': patch_size}
    decoder = {
        'hidden_size': DECODER_WIDTH,
        'mlp_dim': 2 * DECODER_WIDTH,
        'num_attention_heads': DECODER_HEADS,
        'iou_head_hidden_dim': DECODER_WIDTH,
    }
    model = SamModel(
        SamConfig(
            vision_config=vision,
            prompt_encoder_config=prompts,
            mask_decoder_config=decoder,
            initializer_range=0.05,
        )
    )
    _spread_positions(model)
    _align_attention(model.mask_decoder)
    model.vision_encoder.neck.layer_norm2.weight.data.mul_(0.5)
    return model


@torch.no_grad()
def _spread_positions(model: Any) -> None:
    """Frequencies of a few waves a picture, as SAM's own code draws them, and fixed as they are there.

    transformers draws them ``hidden_size / 2`` times as high, which no checkpoint ever sees: neighbours
    would have nothing in common. It keeps one copy for prompts and one for pictures, tied or not.
    """
    shared = model.shared_image_embedding.positional_embedding
    shared.normal_(0, _FREQUENCY)
    model.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    model.vision_encoder.pos_embed.normal_(0, 0.1)
    for name, weight in model.named_parameters():
        if name.endswith('positional_embedding'):
            weight.requires_grad_(False)


@torch.no_grad()
def _align_attention(decoder: nn.Module) -> None:
    """Let prompts look at their own place from the start: heads compare some of the waves of both positions.

    With random projections it segments all there is within a few hundred steps, and does not begin to find
    out that it is asked for one object. What positions are added to is halved, so that it does not hide them.
    """
    for name, module in decoder.named_modules():
        if name.endswith(('token_to_image', 'image_to_token')):
            half = module.hidden_size // 2  # sines, then cosines of as many waves
            pairs = module.internal_dim // module.num_attention_heads // 2
            for wave in range(module.internal_dim // 2):
                row = 2 * pairs * (wave // pairs) + wave % pairs
                for projection in (module.q_proj.weight, module.k_proj.weight):
                    projection[row, wave] += _ALIGNED
                    projection[row + pairs, half + wave] += _ALIGNED
        elif isinstance(module, nn.LayerNorm):
            module.weight.mul_(0.5)


def build_sam_processor(image_size: int = 64) -> Any:
    """A ``SamProcessor`` whose images have a longer side of ``image_size`` pixels, padded to a square."""
    from transformers import SamImageProcessor, SamProcessor

    square = {'height': image_size, 'width': image_size}
    longest = {'longest_edge': image_size}
    return SamProcessor(
        SamImageProcessor(size=longest, pad_size=square, mask_size=longest, mask_pad_size=square)
    )


def decode(
    model: Any, embeddings: Tensor, prompts: Prompts, multimask: bool, mask_logits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One call of the decoder for O objects, of whatever pictures.

    Args:
        model: a ``SamModel``.
        embeddings: [O, D, r, c], of each object's picture.
        prompts: of the objects.
        multimask: three proposals an object, else one.
        mask_logits: [O, h, w] of an earlier call.

    Returns:
        mask logits [O, C, h, w] and predicted IoUs [O, C] of C proposals.
    """
    arguments: dict[str, Tensor] = {}
    if prompts.points is not None and prompts.labels is not None:
        arguments['input_points'] = prompts.points[:, None]
        arguments['input_labels'] = prompts.labels[:, None]
    if prompts.boxes is not None:
        arguments['input_boxes'] = prompts.boxes[:, None]
    if mask_logits is not None:
        arguments['input_masks'] = mask_logits[:, None]
    output = model(image_embeddings=embeddings, multimask_output=multimask, **arguments)
    return output.pred_masks[:, 0], output.iou_scores[:, 0]
