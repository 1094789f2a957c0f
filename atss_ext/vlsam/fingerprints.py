"""What results depend on, in a few words that can be compared."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from atss_ext.version import __version__
from atss_ext.vlsam.hub import local_name
from atss_ext.vlsam.options import PipelineOptions
from atss_ext.vlsam.protocols import VlsamError


def fingerprint(vlm: Any, segmenter: Any, options: PipelineOptions) -> str:
    """Of two models and the settings: equal where results are, in any process and for any order of keys.

    What a part's ``device`` says does not count. Of a model in a local folder (``model``) or file
    (``checkpoint``), size and time of the files count: saved anew, it is another model.

    Args:
        vlm: config of the vision-language model; None where a config has none.
        segmenter: config of the segmenter; None where a config has none.
        options: of the steps.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: a part is no config but a model that is built, which nothing tells from another.
        VlsamError: a value in a config or in the options can likewise not be told from another, or a part
            names a model inside of a package that is not there.
    """
    about = {
        'version': __version__,
        'vlm': _part('vlm', vlm),
        'segmenter': _part('segmenter', segmenter),
        'options': _plain('options', options),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _part(name: str, part: Any) -> Any:
    if part is None:
        return None
    if not isinstance(part, Mapping):
        raise ValueError(
            f'{name} is a {type(part).__qualname__} that is built, and its results in a store cannot be told '
            "from another one's; name both models by config, or leave store away."
        )
    plain = _plain(name, {key: value for key, value in part.items() if key != 'device'})
    return [plain, _files(part)]


def _files(part: Mapping[str, Any]) -> list[list[Any]]:
    """Name, size in bytes and time in nanoseconds of the files a local model consists of."""
    found: list[Path] = []
    for key in ('model', 'checkpoint'):
        if isinstance(part.get(key), str | os.PathLike):
            name = os.fspath(part[key])
            path = Path(local_name(name) if key == 'model' else name).expanduser()
            found += [path] if path.is_file() else [path / 'config.json', *sorted(path.glob('*.safetensors'))]
    stats = [(path.name, path.stat()) for path in found if path.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _plain(name: str, value: Any) -> Any:
    """A value as JSON holds it; ``name`` is the place it stands at."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        items = {key if isinstance(key, str) else repr(key): item for key, item in value.items()}
        return {key: _plain(f'{name}.{key}', item) for key, item in items.items()}
    if isinstance(value, list | tuple):
        return [_plain(f'{name}[{index}]', item) for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((_plain(name, item) for item in value), key=repr)
    if isinstance(value, functools.partial):
        return [_plain(name, part) for part in (value.func, value.args, value.keywords)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {'type': type(value).__qualname__, **_plain(name, fields)}
    return _words(name, value)


def _words(name: str, value: Any) -> str:
    """Functions and classes by their names, all else by what Python prints of it."""
    title = getattr(value, '__qualname__', None)
    words = f'{value.__module__}.{title}' if title and not hasattr(value, '__self__') else repr(value)
    # What is printed of a model is its layers without their weights, and of a large tensor a part.
    if (
        isinstance(value, nn.Module | Tensor)
        or '<lambda>' in words
        or '<locals>' in words
        or ' at 0x' in words
    ):
        kind = title or type(value).__qualname__
        raise VlsamError(
            f'{name} is a {kind}, which nothing tells from another in a later run; give a value that a '
            'config file can hold, or a function of a module.'
        )
    return words
