"""What loading any model of transformers by its name has to heed: weights from safetensors, never code."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from atss_ext.vlsam.protocols import VlsamError

OLDEST = 5  # of transformers
INSTALL = 'run pip install "atss_ext[vlsam]"'
SHIPPED = ('atss_ext::vlsam/world/weights/vlm', 'atss_ext::vlsam/world/weights/sam')
"""The models that come with the package, a vision-language model and a SAM, by the names that load them."""

# Seconds the hub has to answer at all before models are looked for in its cache alone.
_PATIENCE = 5
_PACKAGE = Path(__file__).resolve().parents[1]
# Options of transformers that would run code of the model's author, or read pickles.
_REFUSED = ('trust_remote_code', 'code_revision', 'use_safetensors', 'use_kernels')


def require_transformers(user: str) -> ModuleType:
    """Transformers, imported when it is first needed.

    Args:
        user: the class that needs it, for the message.

    Raises:
        VlsamError: it is missing, broken or too old.
    """
    try:
        import transformers
    except ImportError as error:
        raise VlsamError(
            f'{user} needs transformers, which cannot be imported ({error}); {INSTALL}.'
        ) from error
    if int(transformers.__version__.split('.')[0]) < OLDEST:
        raise VlsamError(
            f'transformers {transformers.__version__} is too old for {user}, which needs {OLDEST}.0 or '
            f'newer; {INSTALL}.'
        )
    return transformers


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


def local_name(name: str) -> str:
    """The folder inside of the installed package that ``atss_ext::path`` names; other names as they are.

    It is the form in which configs name a ``_base_`` of another package.

    Args:
        name: ``atss_ext::path``, a folder, or a model of the Hugging Face hub.

    Raises:
        VlsamError: another package is named, or ours has no such folder.
    """
    package, colons, path = name.partition('::')
    if not colons or os.path.isdir(name):
        return name
    known = ' and '.join(SHIPPED)
    if package != _PACKAGE.name:
        raise VlsamError(
            f'{name} names a model inside of the package {package}, but only {_PACKAGE.name} comes with '
            f'models: {known}.'
        )
    folder = Path(os.path.normpath(_PACKAGE / path))
    if folder.is_dir() and _PACKAGE in folder.parents:
        return str(folder)
    if name in SHIPPED:
        raise VlsamError(f'{name} is missing in this installation ({folder}); install {package} again.')
    raise VlsamError(
        f'{name} does not exist inside of {_PACKAGE}; the models that come with {package} are {known}.'
    )


def check_folder(name: str, example: str) -> None:
    """Say that a path does not exist, rather than ask the hub for it.

    Args:
        name: a folder, a model of the Hugging Face hub, or ``atss_ext::path``.
        example: of a model of the hub, for the message.

    Raises:
        VlsamError: the name is a path, and there is no such folder.
    """
    if local_name(name) != name:
        return
    is_path = name.startswith(('.', '/', '~')) or '\\' in name or name.count('/') > 1
    if is_path and not os.path.isdir(name):
        raise VlsamError(
            f'the folder {name} does not exist; correct the path, or name a model of the Hugging Face hub '
            f'such as {example}.'
        )


def fetch(loader: Callable[..., Any], name: str, what: str, options: Mapping[str, Any]) -> Any:
    """Call a ``from_pretrained``; what it raises becomes a sentence.

    Args:
        loader: the method.
        name: a folder, a model of the Hugging Face hub, or ``atss_ext::path``.
        what: 'configuration', 'model' or 'processor'.
        options: of the method.

    Raises:
        VlsamError: it cannot be loaded.
    """
    from safetensors import SafetensorError

    known = local_name(name)
    if not os.path.isdir(known) and not _hub_answers():
        # Otherwise every file is asked for six times, which takes a minute and fills pages.
        options = {**options, 'local_files_only': True}
    try:
        return loader(known, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        raise VlsamError(_explain(name, what, error)) from error


def _hub_answers() -> bool:
    """Whether the hub can be reached, directly or by a proxy of the environment; not if it is forbidden."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception:  # of whatever library the hub's package uses
        return False
    return True


def _explain(name: str, what: str, error: Exception) -> str:
    """Why something could not be loaded, and the way out, in one sentence."""
    reason = ' '.join(str(error).split())
    line = f'{reason[:300].rstrip(". ")}{" ..." if len(reason) > 300 else ""}'
    if 'trust_remote_code' in reason:
        return (
            f'{name} needs Python code of its author, which is not executed; take a model that transformers '
            'knows, or write a class with the two methods of its protocol in atss_ext.vlsam.protocols around '
            'it.'
        )
    if 'timm' in reason.lower() and isinstance(error, ImportError):
        return f'the {what} {name} has a backbone of timm, which is missing; run pip install timm.'
    if os.path.isdir(local_name(name)) or isinstance(error, TypeError | ImportError):
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
