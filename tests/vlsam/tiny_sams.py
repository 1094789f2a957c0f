"""The segmenters of transformers at tiny size: the real classes, with random weights.

Their image is 128 x 128 pixels instead of 1024 x 1024, and mask logits are 32 x 32.
"""

import torch
import transformers as hf
from torch import nn

# Each with a seed that gives masks between empty and full, which differ between objects and proposals.
SEEDS = {'sam': 4, 'sam_hq': 37, 'sam2': 27, 'edgetam': 14, 'sam3_tracker': 28}
FAMILIES = tuple(SEEDS)
SIDE = 128
DECODER = {
    'hidden_size': 32,
    'mlp_dim': 32,
    'num_attention_heads': 2,
    'iou_head_hidden_dim': 32,
}
# Of SAM 2 and its kin, whose single mask else gives way to the best of several almost always.
STABLE = {**DECODER, 'dynamic_multimask_stability_thresh': 0.5}
PROMPTS = {'hidden_size': 32, 'image_size': SIDE, 'patch_size': 16, 'mask_input_channels': 16}


def tiny_sam(family: str, seed: int = 0) -> tuple[nn.Module, object]:
    """A model in evaluation mode and its processor.

    Args:
        family: one of :data:`FAMILIES`. EdgeTAM's own backbone needs timm, which is not required here: its
            neck, prompt encoder and decoder stand on the vision model of SAM 2.
        seed: other weights; masks may then be empty or full.
    """
    model = _BUILDERS[family]()
    randomise(model, SEEDS[family] + seed)
    return model.eval(), tiny_processor(family)


def tiny_processor(family: str) -> object:
    """The family's processor for images of 128 x 128 pixels."""
    square = {'height': SIDE, 'width': SIDE}
    if family in ('sam', 'sam_hq'):
        images = hf.SamImageProcessor(
            size={'longest_edge': SIDE},
            pad_size=square,
            mask_size={'longest_edge': SIDE // 4},
            mask_pad_size={'height': SIDE // 4, 'width': SIDE // 4},
        )
        return hf.SamProcessor(images) if family == 'sam' else hf.SamHQProcessor(images)
    if family == 'sam3_tracker':
        return hf.Sam3TrackerProcessor(hf.Sam3ImageProcessor(size=square))
    return hf.Sam2Processor(hf.Sam2ImageProcessor(size=square))


def randomise(model: nn.Module, seed: int) -> None:
    """Weights that keep the size of what goes through, biases that are not zero, norms left alone.

    Queries and keys are half as large: attention that is not sharp keeps rounding as small as in real models.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = {id(p) for m in model.modules() if 'Norm' in type(m).__name__ for p in m.parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if id(parameter) in norms:
                continue
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            if 'positional_embedding' in name or '_token' in name or 'embed.' in name:
                fan_in = 1  # rows to be looked up, not multiplied
            gain = 0.5 if '.q_proj.' in name or '.k_proj.' in name else 1.0
            parameter.normal_(0, gain * fan_in**-0.5, generator=generator)
        for name, buffer in model.named_buffers():
            if 'positional_embedding' in name:  # one, kept twice
                buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(seed)))


def _sam(family: str) -> nn.Module:
    prefix = {'sam': 'Sam', 'sam_hq': 'SamHQ'}[family]
    vision = {
        'hidden_size': 16,
        'output_channels': 32,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'image_size': SIDE,
        'window_size': 4,
        'global_attn_indexes': [1],
        'num_pos_feats': 16,
        'mlp_dim': 32,
    }
    decoder = DECODER | ({'vit_dim': 16} if family == 'sam_hq' else {})
    config = getattr(hf, f'{prefix}Config')(
        vision_config=vision, prompt_encoder_config=PROMPTS, mask_decoder_config=decoder
    )
    return getattr(hf, f'{prefix}Model')(config)


def sam2_vision() -> hf.Sam2VisionConfig:
    """Config of a tiny Hiera."""
    backbone = hf.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        blocks_per_stage=[1, 1, 2, 1],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
    )
    return hf.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=32,
    )


def _sam2() -> nn.Module:
    return hf.Sam2Model(
        hf.Sam2Config(vision_config=sam2_vision(), prompt_encoder_config=PROMPTS, mask_decoder_config=STABLE)
    )


def _edgetam() -> nn.Module:
    return hf.EdgeTamModel(
        hf.EdgeTamConfig(
            vision_config=sam2_vision(), prompt_encoder_config=PROMPTS, mask_decoder_config=STABLE
        )
    )


def _sam3_tracker() -> nn.Module:
    backbone = {
        'model_type': 'sam3_vit_model',
        'hidden_size': 16,
        'intermediate_size': 32,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'image_size': SIDE,
        'patch_size': 16,
        'window_size': 4,
        'global_attn_indexes': [1],
        'pretrain_image_size': SIDE,
    }
    vision = hf.Sam3VisionConfig(
        backbone_config=backbone,
        fpn_hidden_size=32,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )
    return hf.Sam3TrackerModel(
        hf.Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=PROMPTS, mask_decoder_config=STABLE)
    )


_BUILDERS = {
    'sam': lambda: _sam('sam'),
    'sam_hq': lambda: _sam('sam_hq'),
    'sam2': _sam2,
    'edgetam': _edgetam,
    'sam3_tracker': _sam3_tracker,
}
