"""Loading a segmenter of transformers by its name: weights from safetensors, never code."""

import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch

from atss_ext.vlsam.protocols import VlsamError
from atss_ext.vlsam.segmenter.families import FAMILIES, Family, unsupported

OLDEST = 5  # of transformers
# Options of transformers that would run code of the model's author, or read pickles.
_REFUSED = ('trust_remote_code', 'code_revision', 'use_safetensors', 'use_kernels')


def import_transformers() -> ModuleType:
    """Transformers, imported when it is first needed.

    Raises:
        VlsamError: it is missing, broken or too old.
    """
    install = 'run pip install "atss_ext[vlsam]"'
    try:
        import transformers
    except ImportError as error:
        raise VlsamError(
            f'TransformersSegmenter needs transformers, which cannot be imported ({error}); {install}.'
        ) from error
    if int(transformers.__version__.split('.')[0]) < OLDEST:
        raise VlsamError(
            f'transformers {transformers.__version__} is too old for TransformersSegmenter, which needs '
            f'{OLDEST}.0 or newer; {install}.'
        )
    return transformers


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that would run what was fetched.

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
    transformers = import_transformers()
    _check_folder(name)
    config = _load(transformers.AutoConfig.from_pretrained, name, 'configuration', source)
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
    return _load(loader, name, 'model', settings), family


def load_processor(name: str, source: Mapping[str, Any], family: Family) -> Any:
    """The processor of a model of ``family``.

    Raises:
        VlsamError: it cannot be loaded.
    """
    _check_folder(name)
    return _load(getattr(import_transformers(), family.processor).from_pretrained, name, 'processor', source)


def _check_folder(name: str) -> None:
    """Say that a path does not exist, rather than ask the hub for it."""
    is_path = name.startswith(('.', '/', '~')) or '\\' in name or name.count('/') > 1
    if is_path and not os.path.isdir(name):
        raise VlsamError(
            f'the folder {name} does not exist; correct the path, or name a model of the Hugging Face hub '
            'such as facebook/sam2.1-hiera-large.'
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
    short = f'{reason[:300].rstrip(". ")}{" ..." if len(reason) > 300 else ""}'
    if 'timm' in reason.lower() and isinstance(error, ImportError):
        return f'the {what} {name} has a backbone of timm, which is missing; run pip install timm.'
    if os.path.isdir(name) or isinstance(error, TypeError | ImportError):
        return f'the {what} {name} cannot be loaded ({short}); {_way_out(what, error)}.'
    return (
        f'the {what} {name} is no folder here, and could not be fetched from the Hugging Face hub ({short}); '
        'correct the name, connect to the network, or give the folder of a downloaded model.'
    )


def _way_out(what: str, error: Exception) -> str:
    if isinstance(error, ImportError):
        return 'install what it asks for'
    if isinstance(error, TypeError):
        return 'correct load_options'
    if what == 'model' and 'safetensors' in str(error):
        return 'convert its weights to safetensors, other files may execute code when they are read'
    return 'save model and processor there again with save_pretrained'
