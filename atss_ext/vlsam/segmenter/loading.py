"""Loading a segmenter of transformers by its name: weights from safetensors, never code."""

from collections.abc import Mapping
from typing import Any

import torch

from atss_ext.vlsam.hub import check_folder, fetch, require_transformers
from atss_ext.vlsam.protocols import VlsamError
from atss_ext.vlsam.segmenter.families import FAMILIES, Family, unsupported

_USER, _EXAMPLE = 'TransformersSegmenter', 'facebook/sam2.1-hiera-large'


def find_dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    """'auto' as it is, other names as the type they name.

    Raises:
        ValueError: it is no floating type.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype != 'auto' else dtype
    if found == 'auto' or (isinstance(found, torch.dtype) and found.is_floating_point):
        return found
    raise ValueError(f"dtype is {dtype!r}; it takes 'auto', 'float32', 'float16' or 'bfloat16'.")


def load_model(
    name: str, source: Mapping[str, Any], dtype: str | torch.dtype, options: Mapping[str, Any]
) -> tuple[Any, Family]:
    """A model on the CPU (unless the options place it) and what it is.

    Args:
        name: a folder, or a model of the Hugging Face hub.
        source: ``revision`` and ``local_files_only``.
        dtype: as transformers takes it.
        options: for ``from_pretrained``.

    Raises:
        VlsamError: transformers is missing, or the model cannot be loaded or takes no points.
    """
    transformers = require_transformers(_USER)
    check_folder(name, _EXAMPLE)
    config = fetch(transformers.AutoConfig.from_pretrained, name, 'configuration', source)
    family = next((f for f in FAMILIES if config.model_type in f.model_types), None)
    if family is None:  # before gigabytes are fetched
        raise unsupported(f'{name}, a model of type {config.model_type},')
    if not hasattr(transformers, family.model):
        raise VlsamError(
            f'transformers {transformers.__version__} does not have the {family.model} that {name} is; run '
            'pip install -U transformers.'
        )
    loader = getattr(transformers, family.model).from_pretrained
    settings = {'dtype': dtype, **options, 'use_safetensors': True, **source}
    return fetch(loader, name, 'model', settings), family


def load_processor(name: str, source: Mapping[str, Any], family: Family) -> Any:
    """The processor of a model of ``family``.

    Raises:
        VlsamError: it cannot be loaded.
    """
    check_folder(name, _EXAMPLE)
    return fetch(
        getattr(require_transformers(_USER), family.processor).from_pretrained, name, 'processor', source
    )
