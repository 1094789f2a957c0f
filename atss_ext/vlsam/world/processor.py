"""The small model's processor: a ``LlavaProcessor`` of a word-level tokenizer and CLIP's image processor.

The tokenizer marks the start of words as Llama's does, so that tokens decode to text with its blanks and
each token stands for characters of its own.
"""

import re
from collections.abc import Sequence
from typing import Any

from atss_ext.vlsam.world.scenes import NOTHING, QUESTIONS, SPEC

IMAGE_TOKEN = '<image>'
SPECIAL_TOKENS = ('<pad>', '<s>', '</s>', '<unk>', IMAGE_TOKEN)
"""Their ids are 0, 1, 2, 3 and 4."""

# LLaVA-1.5's form of a conversation.
_CHAT_TEMPLATE = (
    '<s>{% for message in messages %}{{ message.role | upper }}: '
    "{% for part in message.content %}{% if part.type == 'image' %}<image>\n"
    '{% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}'
    '{% if add_generation_prompt %}ASSISTANT:{% endif %}'
)
_PUNCTUATION = (',', '.', '?', ':')
_WORD_START = '\u2581'


def vocabulary(extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Every token, its place its id: the special ones, punctuation, and the words in alphabetical order.

    Args:
        extra: texts whose words the tokenizer should know too.
    """
    texts = (*QUESTIONS, *extra, *SPEC.category_names, NOTHING, 'a', 'an', 'user', 'assistant', 'and', 'the')
    words = sorted({word for text in texts for word in re.findall(r"[\w'-]+", text.lower())})
    return (*SPECIAL_TOKENS, *_PUNCTUATION, *(_WORD_START + word for word in words))


def build_tokenizer() -> Any:
    """A ``PreTrainedTokenizerFast`` over :func:`vocabulary`; case does not matter to it."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token='<unk>'))
    blanks = normalizers.Sequence(
        [normalizers.Replace(Regex(r'\s+'), ' '), normalizers.Strip(), normalizers.Lowercase()]
    )
    tokenizer.normalizer = blanks
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme='always'),
            pre_tokenizers.Split(Regex(r'[,.?:]'), 'isolated'),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme='always')
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token='<pad>',
        bos_token='<s>',
        eos_token='</s>',
        unk_token='<unk>',
        additional_special_tokens=[IMAGE_TOKEN],
        padding_side='left',
        clean_up_tokenization_spaces=False,
    )


def build_processor(image_size: int = 64, patch_size: int = 8) -> Any:
    """A ``LlavaProcessor`` for square images of ``image_size`` pixels, others are squeezed to that.

    Args:
        image_size: side of what the model sees, pixels.
        patch_size: side of a token's part of it, pixels.

    Raises:
        ValueError: the image is no whole number of patches.
    """
    from transformers import CLIPImageProcessor, LlavaProcessor

    if patch_size < 1 or image_size % patch_size:
        raise ValueError(
            f'image_size must be a multiple of patch_size, but {image_size} is none of {patch_size}.'
        )
    side = {'height': image_size, 'width': image_size}
    image_processor = CLIPImageProcessor(
        size=side, do_center_crop=False, crop_size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaProcessor(
        image_processor,
        build_tokenizer(),
        patch_size=patch_size,
        vision_feature_select_strategy='default',
        chat_template=_CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
    )


def conversation(question: str) -> list[dict[str, Any]]:
    """One question about one image, as ``apply_chat_template`` takes it."""
    content = [{'type': 'image'}, {'type': 'text', 'text': question}]
    return [{'role': 'user', 'content': content}]
