"""Options of image processors where their own are not what VL-SAM wants, and a check of the user's."""

from collections.abc import Mapping
from typing import Any

# So many tokens of an image at most, unless the user wants more: the time and memory of attention flow grow
# with their square, and published checkpoints allow 16384 (Qwen2.5-VL, an image of 4096 x 4096 pixels).
QWEN_TOKENS = 1280


def default_options(family: str, processor: Any, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the image processor that the user did not choose.

    Args:
        family: name of the family.
        processor: of transformers.
        chosen: the user's options, which win.

    Returns:
        options, to be updated with ``chosen``.
    """
    image_processor = getattr(processor, 'image_processor', None)
    if family == 'LLaVA-1.5':
        return _whole_image(image_processor, chosen)
    return _few_tokens(image_processor, chosen) if family.startswith('Qwen') else {}


def check_options(image_processor: Any, options: Mapping[str, Any]) -> None:
    """Refuse options that would be ignored silently.

    Raises:
        ValueError: the image processor has no such option.
    """
    known = getattr(getattr(image_processor, 'valid_kwargs', None), '__annotations__', {})
    for name in options:
        if name not in known and not hasattr(image_processor, name):
            raise ValueError(
                f'image_options holds {name!r}, which {type(image_processor).__name__} does not have; it has '
                f'{", ".join(sorted(known))}.'
            )


def _whole_image(image_processor: Any, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Options that squeeze the whole image into LLaVA-1.5's square; its processor would cut the ends off.

    What nobody sees nobody names. The paper's own model takes squeezed images as well.
    """
    keys = ('size', 'crop_size', 'do_center_crop', 'do_pad')
    crops = getattr(image_processor, 'do_center_crop', False)
    pads = getattr(image_processor, 'do_pad', False) and hasattr(image_processor, 'pad_to_square')
    if not crops or pads or any(key in chosen for key in keys):
        return {}
    size = image_processor.crop_size
    return {'size': {key: int(size[key]) for key in ('height', 'width')}, 'do_center_crop': False}


def _few_tokens(image_processor: Any, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Options that keep an image of Qwen-VL to :data:`QWEN_TOKENS`; a smaller limit of its own stays."""
    if any(key in chosen for key in ('size', 'min_pixels', 'max_pixels')):
        return {}
    try:
        size = image_processor.size
        shortest, longest = int(size['shortest_edge']), int(size['longest_edge'])  # pixels of the whole image
        patch = int(chosen.get('patch_size', image_processor.patch_size))
        side = patch * int(chosen.get('merge_size', image_processor.merge_size))
    except (AttributeError, KeyError, TypeError):  # none of Qwen's, which is refused later
        return {}
    limit = QWEN_TOKENS * side**2
    if longest <= limit or shortest > limit:
        return {}
    return {'size': {'shortest_edge': shortest, 'longest_edge': limit}}
