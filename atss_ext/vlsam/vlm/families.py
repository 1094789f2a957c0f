"""Where each family of models puts the tokens of an image, and which part of it they see."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atss_ext.vlsam.protocols import TokenGrid, VlsamError
from atss_ext.vlsam.vlm import geometry
from atss_ext.vlsam.vlm.geometry import WHOLE, Box, Size


class Preprocessed(NamedTuple):
    """One image as a model gets it.

    Attributes:
        size: (height, width) of the image.
        inputs: what the processor made of it and its prompt; one sequence.
        config: the model's.
        processor: of transformers.
        options: of the image processor, where they differ from its own.
    """

    size: Size
    inputs: Mapping[str, Tensor]
    config: Any
    processor: Any
    options: Mapping[str, Any]

    def setting(self, name: str) -> Any:
        """A setting of the image processor, as it was when the image went through."""
        return self.options.get(name, getattr(self.processor.image_processor, name, None))


class Part(NamedTuple):
    """Tokens of one part of an image.

    Attributes:
        order: int64 [R, C], which of the image's tokens stands in row r and column c.
        box: xyxy, the part of the image, fractions.
    """

    order: Tensor
    box: Box


class Layout(NamedTuple):
    """Tokens of an image.

    Attributes:
        tokens: how many placeholders, newlines and the like included.
        parts: in the order of the sequence.
    """

    tokens: int
    parts: list[Part]


class Family(NamedTuple):
    """What sets one family apart.

    Attributes:
        name: as people call it.
        prompt: for processors without a chat template; ``{image}`` and ``{question}`` are filled in.
        layout: finds the tokens.
    """

    name: str
    prompt: str
    layout: Callable[[Preprocessed], Layout]


def family_of(config: Any) -> Family:
    """The family of a model's config.

    Raises:
        VlsamError: none of ours.
    """
    family = FAMILIES.get(config.model_type)
    # LLaVA's class also runs Pixtral's vision tower, whose tokens stand otherwise.
    tower = getattr(getattr(config, 'vision_config', None), 'model_type', '')
    if family is None or tower == 'pixtral':
        raise VlsamError(
            f'model type {config.model_type!r}{" with pixtral" if tower == "pixtral" else ""} is not '
            f'supported; take one of {", ".join(FAMILIES)}, or write a class with the two methods of '
            'atss_ext.vlsam.protocols.VisionLanguageModel around yours.'
        )
    return family


def token_grids(seen: Preprocessed) -> list[TokenGrid]:
    """The grids of one image's tokens in its sequence.

    Raises:
        VlsamError: the sequence holds another number of placeholders than the model's grids have tokens.
    """
    family = family_of(seen.config)
    layout = family.layout(seen)
    ids = seen.inputs['input_ids'][0]
    positions = torch.nonzero(ids == seen.config.image_token_id)[:, 0]
    if len(positions) != layout.tokens:
        raise VlsamError(
            f'{family.name}: the prompt holds {len(positions)} image tokens, but an image of {seen.size[1]} '
            f'x {seen.size[0]} pixels has {layout.tokens} in the grids of the model; processor and model do '
            'not belong together, or their settings (patch size, feature selection, tile sizes) were changed.'
        )
    return [TokenGrid(positions[order.to(positions.device)], box) for order, box in layout.parts]


def _raster(rows: int, columns: int, first: int = 0) -> Tensor:
    return torch.arange(first, first + rows * columns).view(rows, columns)


def _tiles(rows: int, columns: int, side: Size, first: int = 0) -> Tensor:
    """Order [rows * R, columns * C] of tiles that follow each other row by row, each with R x C tokens."""
    height, width = side
    order = torch.arange(first, first + rows * columns * height * width).view(rows, columns, height, width)
    return order.permute(0, 2, 1, 3).reshape(rows * height, columns * width)


def _leading_tokens(seen: Preprocessed) -> int:
    """LLaVA: how many tokens stand before those of the patches (CLS, unless the strategy drops it)."""
    additional = getattr(seen.processor, 'num_additional_image_tokens', 0)
    leading = additional - (seen.config.vision_feature_select_strategy == 'default')
    if leading < 0:
        raise VlsamError(
            "vision_feature_select_strategy='default' drops the first token of an image, but the processor's "
            f'num_additional_image_tokens is {additional}; set it to 1 where the vision tower has a CLS '
            "token, or the strategy to 'full'."
        )
    return leading


def _llava(seen: Preprocessed) -> Layout:
    """LLaVA-1.5: one grid (24 x 24); of a centre crop, unless the processor pads to a square."""
    patch = int(seen.config.vision_config.patch_size)
    crop: Size = tuple(seen.inputs['pixel_values'].shape[-2:])  # type: ignore[assignment]
    rows, columns = crop[0] // patch, crop[1] // patch
    canvas, paste = seen.size, (0, 0)
    if seen.setting('do_pad') and hasattr(seen.processor.image_processor, 'pad_to_square'):
        canvas, paste = geometry.padded_square(seen.size)
    resized = canvas
    if seen.setting('do_resize'):
        size = seen.setting('size')
        edge = _entry(size, 'shortest_edge')
        resized = (
            geometry.shortest_edge_size(canvas, edge)
            if edge
            else (_entry(size, 'height') or 0, _entry(size, 'width') or 0)
        )
    box = geometry.window_box(seen.size, canvas, paste, resized, crop, (rows * patch, columns * patch))
    leading = _leading_tokens(seen)
    return Layout(leading + rows * columns, [Part(_raster(rows, columns, leading), box)])


def _llava_next(seen: Preprocessed) -> Layout:
    """LLaVA-Next: the whole image in one tile, then its tiles without padding, a newline after each row."""
    from transformers.image_processing_utils import select_best_resolution

    if _leading_tokens(seen):
        raise VlsamError(
            "LLaVA-Next with vision_feature_select_strategy='full' would leave the CLS token among the "
            "patches; set it to 'default'."
        )
    vision = seen.config.vision_config
    tile, side = int(vision.image_size), int(vision.image_size) // int(vision.patch_size)
    canvas = select_best_resolution(seen.size, seen.config.image_grid_pinpoints)
    tokens = (canvas[0] // tile * side, canvas[1] // tile * side)
    rows, columns, box = geometry.anyres_window(seen.size, canvas, tokens)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    base = side * side
    parts = [Part(_raster(side, side), WHOLE)]
    if height > 0 and width > 0:
        parts.append(Part(_raster(height, width + 1, base)[:, :width], box))
    return Layout(base + height * (width + 1), parts)


def _qwen(seen: Preprocessed) -> Layout:
    """Qwen-VL: one grid of the resized image; patches are merged 2 x 2."""
    merge = int(seen.config.vision_config.spatial_merge_size)
    _, height, width = seen.inputs['image_grid_thw'][0].tolist()
    rows, columns = height // merge, width // merge
    return Layout(rows * columns, [Part(_raster(rows, columns), WHOLE)])


def _internvl(seen: Preprocessed) -> Layout:
    """InternVL: tiles of the resized image, row by row, then all of it in one more; or that alone."""
    vision = seen.config.vision_config
    side: Size = tuple(  # type: ignore[assignment]
        int(image // patch * seen.config.downsample_ratio)
        for image, patch in zip(vision.image_size, vision.patch_size, strict=True)
    )
    pixels = seen.inputs['pixel_values']
    rows, columns = 1, 1
    if pixels.size(0) > 1:
        tile = (int(pixels.size(-2)), int(pixels.size(-1)))
        rows, columns = geometry.closest_canvas(
            seen.size, tile, seen.setting('min_patches'), seen.setting('max_patches')
        )
    return _tiles_and_whole(rows, columns, side)


def _idefics(seen: Preprocessed) -> Layout:
    """SmolVLM and Idefics3: tiles of the resized image, row by row, then all of it; or that alone."""
    vision = seen.config.vision_config
    side = int(vision.image_size) // int(vision.patch_size) // int(seen.config.scale_factor)
    rows, columns = 1, 1
    if seen.inputs['pixel_values'].size(1) > 1:
        edge = _entry(seen.setting('size'), 'longest_edge') if seen.setting('do_resize') else None
        tile = _entry(seen.setting('max_image_size'), 'longest_edge') or 0
        rows, columns = geometry.split_tiles(seen.size, edge, tile)
    return _tiles_and_whole(rows, columns, (side, side))


def _tiles_and_whole(rows: int, columns: int, side: Size) -> Layout:
    """Tiles and the whole image; one tile is the whole image already."""
    whole = rows * columns * side[0] * side[1]
    if rows * columns == 1:
        return Layout(whole, [Part(_raster(*side), WHOLE)])
    parts = [Part(_tiles(rows, columns, side), WHOLE), Part(_raster(*side, whole), WHOLE)]
    return Layout(whole + side[0] * side[1], parts)


def _entry(size: Any, name: str) -> int | None:
    """An entry of an image processor's size, which is a mapping or an object."""
    value = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return None if value is None else int(value)


_VICUNA = (
    'A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, '
    "detailed, and polite answers to the human's questions. USER: {image}\n{question} ASSISTANT:"
)
_QWEN = '<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n'
_INTERNVL = '<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n'
_IDEFICS = '<|im_start|>User:{image}{question}<end_of_utterance>\nAssistant:'
FAMILIES = {
    'llava': Family('LLaVA-1.5', 'USER: {image}\n{question} ASSISTANT:', _llava),
    'llava_next': Family('LLaVA-Next', _VICUNA, _llava_next),
    'qwen2_vl': Family('Qwen2-VL', _QWEN, _qwen),
    'qwen2_5_vl': Family('Qwen2.5-VL', _QWEN, _qwen),
    'qwen3_vl': Family('Qwen3-VL', _QWEN, _qwen),
    'internvl': Family('InternVL', _INTERNVL, _internvl),
    'smolvlm': Family('SmolVLM', _IDEFICS, _idefics),
    'idefics3': Family('Idefics3', _IDEFICS, _idefics),
}
