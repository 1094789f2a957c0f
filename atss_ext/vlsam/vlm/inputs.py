"""From an image and a question to what a model takes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from atss_ext.vlsam.protocols import Image, VlsamError
from atss_ext.vlsam.vlm.families import Preprocessed, family_of, token_grids
from atss_ext.vlsam.vlm.image_cache import ImageCache
from atss_ext.vlsam.vlm.image_options import check_options, default_options

# Processors scale the short side up or the long side down; beyond this an image becomes huge or a line.
MAX_ASPECT = 200
# Some processors take a side of three pixels or fewer for the colours.
MIN_SIDE = 4
# What runs beside input_ids, and its value at a token of text.
_PER_TOKEN = {'attention_mask': 1, 'mm_token_type_ids': 0, 'token_type_ids': 0}


class Prompt(NamedTuple):
    """What :class:`Answer` keeps to be read again.

    Attributes:
        image: as it was given; do not change it in place.
        text: the question with everything around it, and the image's placeholder.
    """

    image: Image
    text: str


class PromptBuilder:
    """Builds prompts and preprocesses them, one by one, so that none depends on its batch.

    Args:
        config: the model's.
        processor: of transformers.
        template: with ``{image}`` and ``{question}``, in place of the processor's chat template; None takes
            that, and where there is none the family's usual form.
        image_options: for the image processor, in place of its own settings.

    Raises:
        ValueError: the template lacks one of its fields, or the image processor has no such option.
        VlsamError: model or processor are none of ours, or do not belong together.
    """

    def __init__(
        self, config: Any, processor: Any, template: str | None, image_options: Mapping[str, Any]
    ) -> None:
        if template is not None:
            for field in ('{image}', '{question}'):
                if template.count(field) != 1:
                    raise ValueError(f'prompt_template must hold {field} once, but is {template!r}.')
        self.config = config
        self.processor = processor
        self.family = family_of(config)
        self.options = default_options(self.family.name, processor, image_options) | dict(image_options)
        self.template = template
        if template is None and not getattr(processor, 'chat_template', None):
            self.template = self.family.prompt
        _check_processor(self.family.name, config, processor)
        check_options(processor.image_processor, self.options)
        self._cache = ImageCache()

    def prompt(self, image: Image, question: str) -> Prompt:
        """Put a question about an image into the model's words.

        Raises:
            VlsamError: the image is none, or the question holds the image's placeholder.
        """
        check_image(image)
        placeholder = self.processor.image_token
        if placeholder in question:
            raise VlsamError(
                f'the question {question[:80]!r} holds {placeholder!r}, which stands for the image; leave it '
                'out.'
            )
        if self.template is not None:
            return Prompt(
                image, self.template.replace('{image}', placeholder).replace('{question}', question)
            )
        message = {'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': question}]}
        try:
            text = self.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        except Exception as error:  # whatever a template written in Jinja may raise
            raise VlsamError(
                f'the chat template of the {self.family.name} processor failed ({_first_line(error)}); give '
                "a prompt_template with '{image}' and '{question}'."
            ) from error
        return Prompt(image, text)

    def preprocess(self, prompt: Prompt) -> Preprocessed:
        """Run the processor; its work on the pixels of the last image is kept for the next prompt about it.

        Raises:
            VlsamError: the processor cannot take the image, or its tokens are not as many as the model's.
        """
        from PIL import Image as PillowImage

        bos = self.processor.tokenizer.bos_token
        image = _enlarge(prompt.image)
        try:
            inputs = self._cache.attach(self.processor, image)(
                images=[PillowImage.fromarray(image)],
                text=[prompt.text],
                return_tensors='pt',
                # Templates write the token that begins a text, and so would the tokenizer.
                add_special_tokens=not (bos and prompt.text.startswith(bos)),
                **self.options,
            )
        except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError, MemoryError) as error:
            height, width = prompt.image.shape[:2]
            raise VlsamError(
                f'the {self.family.name} processor cannot take an image of {width} x {height} pixels '
                f'({type(error).__name__}: {_first_line(error)}); crop or resize it, or change image_options.'
            ) from error
        seen = Preprocessed(
            (image.shape[0], image.shape[1]), inputs, self.config, self.processor, self.options
        )
        token_grids(seen)
        return seen


def _enlarge(image: Image) -> Image:
    """A tiny image with each pixel repeated, others as they are; fractions of it stay where they were."""
    factor = -(-MIN_SIDE // min(image.shape[:2]))
    return image if factor == 1 else image.repeat(factor, 0).repeat(factor, 1)


def check_image(image: Any) -> None:
    """Refuse what is no image.

    Raises:
        VlsamError: it is not RGB uint8, has no pixels, or is a thin strip.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        shape = (
            f'{image.dtype} {list(image.shape)}' if isinstance(image, np.ndarray) else type(image).__name__
        )
        raise VlsamError(f'an image must be an RGB uint8 array [H, W, 3], but is {shape}; convert it first.')
    height, width = image.shape[:2]
    if not height or not width or max(height, width) > MAX_ASPECT * min(height, width):
        raise VlsamError(
            f'an image of {width} x {height} pixels cannot be taken: one side must not be more than '
            f'{MAX_ASPECT} times the other; crop or pad it.'
        )


def collate(samples: Sequence[Mapping[str, Tensor]], pad_token_id: int) -> dict[str, Tensor]:
    """One batch of several sequences, padded on the left, where generation wants it.

    Args:
        samples: B of :attr:`Preprocessed.inputs`.
        pad_token_id: fills ``input_ids``.

    Returns:
        ``input_ids`` and what runs beside it [B, N], the pixels of all images one after the other, with
        empty tiles where an image has fewer than another.
    """
    fill = {'input_ids': pad_token_id, **dict.fromkeys(_PER_TOKEN, 0)}
    return {
        name: _cat_left([sample[name] for sample in samples], fill[name])
        if name in fill
        else _cat_padded([sample[name] for sample in samples])
        for name in samples[0]
    }


def _cat_left(rows: list[Tensor], value: int) -> Tensor:
    length = max(row.size(1) for row in rows)
    return torch.cat([torch.nn.functional.pad(row, (length - row.size(1), 0), value=value) for row in rows])


def _cat_padded(parts: list[Tensor]) -> Tensor:
    if len({part.shape[1:] for part in parts}) > 1:
        count = max(part.size(1) for part in parts)
        parts = [
            torch.cat([part, part.new_zeros(part.size(0), count - part.size(1), *part.shape[2:])], 1)
            for part in parts
        ]
    return torch.cat(parts)


def append_tokens(inputs: Mapping[str, Tensor], token_ids: Sequence[int]) -> dict[str, Tensor]:
    """The inputs of one sequence with T tokens of text at its end."""
    ids = inputs['input_ids']
    longer = dict(inputs)
    longer['input_ids'] = torch.cat([ids, ids.new_tensor(list(token_ids)).view(1, -1)], 1)
    for name, value in _PER_TOKEN.items():
        if name in inputs:
            tail = inputs[name].new_full((1, len(token_ids)), value)
            longer[name] = torch.cat([inputs[name], tail], 1)
    return longer


def _check_processor(family: str, config: Any, processor: Any) -> None:
    """Refuse a processor of something else, or of another model."""
    parts = ('image_processor', 'tokenizer', 'image_token')
    missing = [name for name in parts if getattr(processor, name, None) is None]
    if missing:
        raise VlsamError(
            f'{type(processor).__name__} has no {" and no ".join(missing)}; give the processor of a {family} '
            'model.'
        )
    found = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    if found != config.image_token_id:
        raise VlsamError(
            f'the {family} model takes token {config.image_token_id} for the image, but '
            f'{processor.image_token!r} is token {found} of the processor; give the processor of the same '
            'model.'
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ['no reason given'])[0].rstrip('.')
