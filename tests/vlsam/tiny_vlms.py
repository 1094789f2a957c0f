"""The supported vision-language models, tiny: transformers' own classes and processors, random weights.

Nothing is fetched and nothing is written; a model takes about a tenth of a second to build.
"""

import json

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SENTENCES = (
    'A red circle lies beside two blue squares and a green triangle.',
    'List all objects in the image: a dog, a traffic light, a person riding a bicycle.',
    '1. car 2. bus 3. potted plant; the scene shows a street with trees and benches.',
)
USER, ASSISTANT = '<|im_start|>user\n', '<|im_end|>\n<|im_start|>assistant\n'


def _template(image: str, user: str = USER, assistant: str = ASSISTANT) -> str:
    """A chat template with the image's placeholder before the text, as the real ones have it."""
    content = (
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        + f"{{{{ {json.dumps(image)} }}}}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}"
    )
    turn = f'{{{{ {json.dumps(user)} }}}}{content}'
    prompt = f'{{% if add_generation_prompt %}}{{{{ {json.dumps(assistant)} }}}}{{% endif %}}'
    return f'{{% for message in messages %}}{turn}{{% endfor %}}{prompt}'


CHAT_TEMPLATES = {
    'llava': _template('<image>\n', 'USER: ', ' ASSISTANT:'),
    'llava_next': _template('<image>\n', 'USER: ', ' ASSISTANT:'),
    'qwen2_vl': _template('<|vision_start|><|image_pad|><|vision_end|>'),
    'qwen2_5_vl': _template('<|vision_start|><|image_pad|><|vision_end|>'),
    'qwen3_vl': _template('<|vision_start|><|image_pad|><|vision_end|>'),
    'internvl': _template('<IMG_CONTEXT>\n'),
    'smolvlm': _template('<image>', '<|im_start|>User:', '<end_of_utterance>\nAssistant:'),
    'idefics3': _template('<image>', '<|im_start|>User:', '<end_of_utterance>\nAssistant:'),
}
FAMILIES = tuple(CHAT_TEMPLATES)

_IDEFICS_TOKENS = [
    '<fake_token_around_image>',
    '<image>',
    '<end_of_utterance>',
    '<global-img>',
    '<video>',
    *(f'<row_{row}_col_{column}>' for row in range(1, 7) for column in range(1, 7)),
]
_NAMED_TOKENS: dict[str, dict[str, str]] = {
    'llava': {'image_token': '<image>'},
    'llava_next': {'image_token': '<image>'},
    'qwen': {
        'image_token': '<|image_pad|>',
        'video_token': '<|video_pad|>',
        'vision_start_token': '<|vision_start|>',
        'vision_end_token': '<|vision_end|>',
    },
    'internvl': {
        'start_image_token': '<img>',
        'end_image_token': '</img>',
        'context_image_token': '<IMG_CONTEXT>',
        'video_token': '<video>',
    },
    'smolvlm': {
        'fake_image_token': '<fake_token_around_image>',
        'image_token': '<image>',
        'end_of_utterance_token': '<end_of_utterance>',
        'global_image_token': '<global-img>',
        'video_token': '<video>',
    },
}


def byte_tokenizer(family: str = 'llava'):
    """A byte-level BPE tokenizer of some 300 tokens with the special ones the family's processor wants."""
    from transformers import PreTrainedTokenizerFast

    key = 'qwen' if family.startswith('qwen') else 'smolvlm' if family == 'idefics3' else family
    named = _NAMED_TOKENS[key]
    extra = _IDEFICS_TOKENS if key == 'smolvlm' else list(named.values())
    special = ['<|endoftext|>', '<pad>', '<|im_start|>', '<|im_end|>', *extra]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(special) + 40,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token='<|endoftext|>',
        pad_token='<pad>',
        extra_special_tokens=named,
        clean_up_tokenization_spaces=False,
    )


def tiny_vlm(family: str, seed: int = 0, **config_changes):
    """One family's model, in evaluation mode, and processor.

    Args:
        family: one of :data:`FAMILIES` (transformers' ``model_type``).
        seed: of the weights.
        config_changes: of the model's config, such as ``vision_feature_select_strategy``.

    Returns:
        (model, processor): two text layers of four heads (two key heads where the family has GQA), hidden
        size 32, and an image of a few dozen tokens.
    """
    builder = {'qwen2_vl': _qwen, 'qwen2_5_vl': _qwen, 'qwen3_vl': _qwen, 'idefics3': _smolvlm}
    builders = {'llava': _llava, 'llava_next': _llava, 'internvl': _internvl, 'smolvlm': _smolvlm, **builder}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = builders[family](family, byte_tokenizer(family), config_changes)
    # Weights of the usual size would leave every attention uniform in two layers this narrow.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if '.self_attn.' in name and ('language_model' in name or 'text_model' in name):
                weight *= 12
    return model.eval(), processor


def _text_settings(tokenizer, kv_heads: int = 2) -> dict:
    return {
        'vocab_size': len(tokenizer),
        'hidden_size': 32,
        'intermediate_size': 48,
        'num_hidden_layers': 2,
        'num_attention_heads': 4,
        'num_key_value_heads': kv_heads,
        'max_position_embeddings': 4096,
        'bos_token_id': None,
        'eos_token_id': tokenizer.eos_token_id,
        'pad_token_id': tokenizer.pad_token_id,
    }


def _llava(family: str, tokenizer, changes: dict):
    import transformers

    next_generation = family == 'llava_next'
    side = 56 if next_generation else 70
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=side,
        patch_size=14,
    )
    # LLaVA-1.5 speaks with Vicuna, which has no GQA; LLaVA-1.6 with Mistral, which has.
    text_class = transformers.MistralConfig if next_generation else transformers.LlamaConfig
    text = text_class(**_text_settings(tokenizer, 2 if next_generation else 4))
    settings = {'vision_config': vision, 'text_config': text, 'image_token_index': tokenizer.image_token_id}
    processing = {'size': {'shortest_edge': side}, 'crop_size': {'height': side, 'width': side}}
    if next_generation:
        pinpoints = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
        settings |= {'image_grid_pinpoints': pinpoints} | changes
        model = transformers.LlavaNextForConditionalGeneration(transformers.LlavaNextConfig(**settings))
        images = transformers.LlavaNextImageProcessor(image_grid_pinpoints=pinpoints, **processing)
        processor_class = transformers.LlavaNextProcessor
    else:
        settings |= changes
        model = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**settings))
        images = transformers.CLIPImageProcessor(**processing)
        processor_class = transformers.LlavaProcessor
    return model, processor_class(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATES[family],
    )


def _qwen(family: str, tokenizer, changes: dict):
    import transformers

    name = {'qwen2_vl': 'Qwen2VL', 'qwen2_5_vl': 'Qwen2_5_VL', 'qwen3_vl': 'Qwen3VL'}[family]
    patch = 16 if family == 'qwen3_vl' else 14
    vision = {'depth': 2, 'hidden_size': 32, 'num_heads': 4, 'patch_size': patch}
    text = _text_settings(tokenizer) | {
        'rope_parameters': {'rope_type': 'default', 'mrope_section': [1, 1, 2]}
    }
    if family == 'qwen2_vl':
        vision |= {'embed_dim': 32, 'mlp_ratio': 2}
    else:
        vision |= {'intermediate_size': 48, 'out_hidden_size': 32}
    if family == 'qwen2_5_vl':
        vision |= {'window_size': 56, 'fullatt_block_indexes': [1]}
    if family == 'qwen3_vl':
        vision |= {'deepstack_visual_indexes': [0], 'num_position_embeddings': 64}
        text |= {'head_dim': 8}
    settings = {
        'vision_config': vision,
        'text_config': text,
        'image_token_id': tokenizer.image_token_id,
        'video_token_id': tokenizer.video_token_id,
        'vision_start_token_id': tokenizer.vision_start_token_id,
        'vision_end_token_id': tokenizer.vision_end_token_id,
    }
    config = getattr(transformers, f'{name}Config')(**(settings | changes))
    model = getattr(transformers, f'{name}ForConditionalGeneration')(config)
    side = 2 * patch
    size = {'shortest_edge': 4 * side**2, 'longest_edge': 40 * side**2}
    images = transformers.Qwen2VLImageProcessor(patch_size=patch, size=size)
    video_class = 'Qwen3VLVideoProcessor' if family == 'qwen3_vl' else 'Qwen2VLVideoProcessor'
    video = getattr(transformers, video_class)(patch_size=patch)
    processor_class = getattr(transformers, f'{name}Processor')
    return model, processor_class(images, tokenizer, video, chat_template=CHAT_TEMPLATES[family])


def _internvl(family: str, tokenizer, changes: dict):
    import transformers

    vision = transformers.InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=[84, 84],
        patch_size=[14, 14],
    )
    settings = {
        'vision_config': vision,
        'text_config': transformers.Qwen2Config(**_text_settings(tokenizer)),
        'image_token_id': tokenizer.context_image_token_id,
        'image_seq_length': 9,
        'tie_word_embeddings': False,
    }
    model = transformers.InternVLForConditionalGeneration(transformers.InternVLConfig(**(settings | changes)))
    images = transformers.GotOcr2ImageProcessor(size={'height': 84, 'width': 84}, max_patches=6)
    return model, transformers.InternVLProcessor(
        images,
        tokenizer,
        transformers.InternVLVideoProcessor(size={'height': 84, 'width': 84}),
        image_seq_length=9,
        chat_template=CHAT_TEMPLATES[family],
    )


def _smolvlm(family: str, tokenizer, changes: dict):
    import transformers

    name = {'smolvlm': 'SmolVLM', 'idefics3': 'Idefics3'}[family]
    vision = {
        'hidden_size': 32,
        'intermediate_size': 48,
        'num_hidden_layers': 2,
        'num_attention_heads': 4,
        'image_size': 84,
        'patch_size': 14,
    }
    settings = {
        'vision_config': vision,
        'text_config': transformers.LlamaConfig(**_text_settings(tokenizer)),
        'image_token_id': tokenizer.image_token_id,
        'scale_factor': 2,
    }
    config = getattr(transformers, f'{name}Config')(**(settings | changes))
    model = getattr(transformers, f'{name}ForConditionalGeneration')(config)
    size = {'size': {'longest_edge': 3 * 84}, 'max_image_size': {'longest_edge': 84}}
    parts = [getattr(transformers, f'{name}ImageProcessor')(**size), tokenizer]
    if family == 'smolvlm':
        parts.append(transformers.SmolVLMVideoProcessor())
    processor_class = getattr(transformers, f'{name}Processor')
    return model, processor_class(*parts, image_seq_len=9, chat_template=CHAT_TEMPLATES[family])
