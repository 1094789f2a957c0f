"""Loading a model and its processor by name; nothing they hold is executed."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from atss_ext.vlsam.protocols import VlsamError
from atss_ext.vlsam.vlm.families import family_of
from atss_ext.vlsam.vlm.imports import require_transformers

# Options of transformers that would run code of the model's author, or read pickles.
_REFUSED = ('trust_remote_code', 'code_revision', 'use_safetensors', 'use_kernels')


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
    transformers = require_transformers()
    _check_folder(name)
    config = _load(transformers.AutoConfig.from_pretrained, name, 'configuration', source)
    family_of(config)  # before gigabytes are fetched
    settings = {'attn_implementation': 'sdpa', 'dtype': dtype, **options, 'use_safetensors': True, **source}
    return _load(transformers.AutoModelForImageTextToText.from_pretrained, name, 'model', settings).eval()


def load_processor(name: str, source: Mapping[str, Any]) -> Any:
    """Load a processor.

    Raises:
        VlsamError: it cannot be loaded.
    """
    transformers = require_transformers()
    _check_folder(name)
    return _load(transformers.AutoProcessor.from_pretrained, name, 'processor', source)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that would execute what was fetched.

    Raises:
        ValueError: one of them.
    """
    for name in _REFUSED:
        if name in options:
            raise ValueError(
                f'load_options must not hold {name}: weights are read from safetensors alone, and no code of '
                'a model is executed.'
            )
    attention = str(options.get('attn_implementation', ''))
    if '/' in attention:
        raise ValueError(
            f"load_options must not fetch attn_implementation={attention!r}, which is code; take 'sdpa'."
        )


def _check_folder(name: str) -> None:
    """Say that a path does not exist, rather than ask the hub for it."""
    is_path = name.startswith(('.', '/', '~')) or '\\' in name or name.count('/') > 1
    if is_path and not os.path.isdir(name):
        raise VlsamError(
            f'the folder {name} does not exist; correct the path, or name a model of the Hugging Face hub '
            'such as llava-hf/llava-1.5-7b-hf.'
        )


def _load(loader: Callable[..., Any], name: str, what: str, options: Mapping[str, Any]) -> Any:
    from safetensors import SafetensorError

    try:
        return loader(name, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        raise VlsamError(_explain(name, what, error)) from error


def _explain(name: str, what: str, error: Exception) -> str:
    """Why something could not be loaded, and the way out, in one sentence."""
    reason = ' '.join(str(error).split())
    line = f'{reason[:300].rstrip(". ")}{" ..." if len(reason) > 300 else ""}'
    if 'trust_remote_code' in reason:
        return (
            f'{name} needs Python code of its author, which is not executed; take a model that transformers '
            'knows, or write a class with the two methods of atss_ext.vlsam.protocols.VisionLanguageModel '
            'around it.'
        )
    if os.path.isdir(name) or isinstance(error, TypeError | ImportError):
        return f'the {what} {name} cannot be loaded ({line}); {_way_out(what, error)}.'
    return (
        f'the {what} {name} is no folder here, and could not be fetched from the Hugging Face hub ({line}); '
        'correct the name, connect to the network, or give the folder of a downloaded model.'
    )


def _way_out(what: str, error: Exception) -> str:
    if isinstance(error, ImportError) or 'pip install' in str(error):
        return 'install what it asks for'
    if isinstance(error, TypeError):
        return 'correct load_options'
    if what == 'model' and 'safetensors' in str(error):
        return 'convert its weights to safetensors, other files may execute code when they are read'
    return 'save model and processor there again with save_pretrained'
