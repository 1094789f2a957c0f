"""Reading weights from safetensors files, those of ``tools/publish.py`` above all.

Such a file is a header of JSON and bytes of tensors: there is nothing in it that could run. What a published
one says in its metadata: ``sha256`` of its tensors, ``config`` (the text of the resolved config),
``dataset_meta`` (JSON, class names) and ``atss_ext`` (the version that wrote it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pickle import UnpicklingError
from typing import Any

import torch

SUFFIX = '.safetensors'


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def described(dataset_meta: Any) -> dict[str, Any]:
    """The class names and colours of a ``dataset_meta``, whoever wrote it.

    Args:
        dataset_meta: as a checkpoint keeps it; mmdet 2 writes its keys in capitals.

    Returns:
        ``classes``, a tuple of strings, and ``palette``, a list of (red, green, blue), where it has one;
        nothing where it names no class.

    Raises:
        ValueError: it is something else; the message says what, in a few words.
    """
    if not isinstance(dataset_meta, Mapping):
        if dataset_meta is None:
            return {}
        raise ValueError(f'dataset_meta is a {type(dataset_meta).__name__}')
    kept = {key.lower(): value for key, value in dataset_meta.items() if isinstance(key, str)}
    classes = kept.get('classes') or ()
    classes = (classes,) if isinstance(classes, str) else classes
    if not isinstance(classes, Sequence):
        raise ValueError(f'classes is a {type(classes).__name__}')
    strange = [name for name in classes if not (is_text(name) or isinstance(name, int))]
    if strange:
        raise ValueError(f'in classes there is a {type(strange[0]).__name__} that is no name')
    if not classes:
        return {}
    colours = _colours(kept.get('palette'))
    return {'classes': tuple(map(str, classes)), **({'palette': colours} if colours else {})}


def is_text(value: Any) -> bool:
    """Whether it is a string that a file can hold: a pickle may bring half a character."""
    return isinstance(value, str) and not any('\ud800' <= letter <= '\udfff' for letter in value)


def _colours(palette: Any) -> list[tuple[int, ...]]:
    if palette is None or isinstance(palette, str):  # mmdet knows 'random', 'coco', ...
        return []
    try:
        colours = [tuple(int(part) for part in colour) for colour in palette]
    except (TypeError, ValueError, OverflowError):
        colours = [()]
    if any(len(colour) != 3 for colour in colours):
        raise ValueError('palette is no list of red, green and blue')
    return colours


def read_metadata(path: str) -> dict[str, str]:
    """The metadata of a safetensors file.

    Raises:
        pickle.UnpicklingError: it cannot be read, in one sentence.
    """
    return _read(path, with_tensors=False)[1]


def read_published(path: str, map_location: Any = None) -> dict[str, Any]:
    """A safetensors file as a checkpoint of mmengine.

    Args:
        path: the file; one that others wrote has no metadata of ours and yields weights alone.
        map_location: a device for the tensors, the CPU otherwise.

    Returns:
        ``state_dict``, and ``meta`` with ``dataset_meta`` (classes, palette) and ``cfg`` (text, never run)
        where the file has them.

    Raises:
        pickle.UnpicklingError: it is damaged or no such file, in one sentence.
    """
    tensors, metadata = _read(path, with_tensors=True)
    wanted = metadata.get('sha256')
    if wanted is not None and 'atss_ext' in metadata and fingerprint(tensors) != wanted:
        raise UnpicklingError(
            f'Checkpoint {path} is damaged (its tensors do not have the sha256 it states): '
            'copy or download it again'
        )
    meta: dict[str, Any] = {}
    if 'dataset_meta' in metadata:
        meta['dataset_meta'] = _dataset_meta(metadata['dataset_meta'], path)
    if 'config' in metadata:
        meta['cfg'] = metadata['config']
    if isinstance(map_location, str | torch.device):
        tensors = {name: tensor.to(map_location) for name, tensor in tensors.items()}
    return {'state_dict': tensors, 'meta': meta}


def _read(path: str, with_tensors: bool) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UnpicklingError(
            f'Checkpoint {path} cannot be read without safetensors: pip install safetensors'
        ) from None
    try:
        with safe_open(path, framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise UnpicklingError(
            f'Checkpoint {path} cannot be read ({str(error).splitlines()[0]}): if it is damaged, copy '
            'or download it again, otherwise name a safetensors file'
        ) from None


def _dataset_meta(text: str, path: str) -> dict[str, Any]:
    """Class names as mmdet keeps them, a tuple of strings; colours as tuples."""
    try:
        found = described(json.loads(text))
        if not found:
            raise ValueError('no class names')
    except (ValueError, RecursionError):
        raise UnpicklingError(
            f'Checkpoint {path} has a dataset_meta that cannot be read: publish it again with '
            'tools/publish.py'
        ) from None
    return found
