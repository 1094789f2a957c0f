"""Loading a model and its processor by name; nothing they hold is executed."""

from collections.abc import Mapping
from typing import Any

import torch

from atss_ext.vlsam.hub import check_folder, check_options, fetch, require_transformers
from atss_ext.vlsam.vlm.families import family_of

_USER, _EXAMPLE = 'TransformersVLM', 'llava-hf/llava-1.5-7b-hf'


def load_model(
    name: str, source: Mapping[str, Any], dtype: str | torch.dtype, options: Mapping[str, Any]
) -> Any:
    """Load a model in evaluation mode.

    Args:
        name: a folder, or a model of the Hugging Face hub.
        source: ``revision`` and ``local_files_only``.
        dtype: as :class:`TransformersVLM` takes it, 'auto' resolved.
        options: for ``from_pretrained``.

    Raises:
        ValueError: an option that would execute what was fetched.
        VlsamError: it cannot be loaded, or is none of the supported ones.
    """
    check_options(options)
    transformers = require_transformers(_USER)
    check_folder(name, _EXAMPLE)
    config = fetch(transformers.AutoConfig.from_pretrained, name, 'configuration', source)
    family_of(config)  # before gigabytes are fetched
    settings = {'attn_implementation': 'sdpa', 'dtype': dtype, **options, 'use_safetensors': True, **source}
    return fetch(transformers.AutoModelForImageTextToText.from_pretrained, name, 'model', settings).eval()


def load_processor(name: str, source: Mapping[str, Any]) -> Any:
    """Load a processor.

    Raises:
        VlsamError: it cannot be loaded.
    """
    transformers = require_transformers(_USER)
    check_folder(name, _EXAMPLE)
    return fetch(transformers.AutoProcessor.from_pretrained, name, 'processor', source)
