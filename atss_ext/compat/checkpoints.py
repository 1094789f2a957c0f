"""Loading mmengine checkpoints without executing what they contain.

Since 2.6 ``torch.load`` reads with ``weights_only=True``: tensors and plain containers, and no class
that was not allowed by name. mmengine saves more than that (log histories, NumPy arrays and scalars,
the annealing function of a one-cycle schedule), so that its own checkpoints are refused.
:func:`allow_mmengine_classes` allows exactly these names, and stand-ins instead of what could be
turned against the reader:

- ``builtins.getattr``, which pickle uses to name a method, hands out six known methods only. The real
  one reaches every module from any object, and with it arbitrary code.
- ``numpy.dtype`` yields NumPy's own shared numeric types only, whose state a file cannot change, and
  ``numpy.ndarray`` is filled but never called: an array of objects over bytes from the file would be an
  array of forged pointers. (Consequence: arrays must have been written on a machine of this byte order.)

:func:`load_from_local` reads one file this way on every torch, says in one sentence why it refuses, and
drops ``meta['config']``, Python source that mmengine would run on ``resume``. :func:`register_loader`
makes it mmengine's loader of local files, through mmengine's own registry of loaders.

What that leaves open: mmengine reads URLs (``https://``, ``torchvision://``) with an explicit
``weights_only=False``, the fork's mmengine repeats a refused load without restriction, and torch 2.4 and
2.5 read without restriction unless told otherwise. torch's environment variable
``TORCH_FORCE_WEIGHTS_ONLY_LOAD`` closes all three at once; since it binds the whole process, it is set by
the tools (:func:`force_restricted_loading`), not on import. The unpickler of torch 2.4 and 2.5 has known
holes of its own (CVE-2025-32434): there, load files of known origin only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from importlib import import_module
from pickle import UnpicklingError
from typing import Any, NoReturn

import numpy as np
import torch

from atss_ext.compat.published import SUFFIX, read_published

_FORCE_SWITCH, _UNFORCE_SWITCH = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
_ONE_CYCLE = 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'
_STATISTICS = ('min', 'max', 'current', 'mean')
_ANNEALING = ('_annealing_cos', '_annealing_linear')


def allow_mmengine_classes() -> None:
    """Let ``torch.load(..., weights_only=True)`` read mmengine checkpoints; safe to call again.

    Without mmengine only the NumPy names are allowed; nothing heavier than ``mmengine.logging`` is imported.
    """
    known = torch.serialization.get_safe_globals()
    missing = [entry for entry in _safe_globals() if entry not in known]
    if missing:
        torch.serialization.add_safe_globals(missing)


def force_restricted_loading() -> None:
    """Make every ``torch.load`` of this process, and of those it starts, a restricted one.

    Sets torch's own environment variable, unless the user has set it or its opposite. For programs, not for
    libraries.
    """
    # torch refuses to load anything where both are set.
    if _UNFORCE_SWITCH not in os.environ:
        os.environ.setdefault(_FORCE_SWITCH, '1')


def register_loader() -> None:
    """Make :func:`load_from_local` mmengine's loader of local files. Imports ``mmengine.runner``."""
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint file; same call as mmengine's loader of this name.

    Args:
        filename: path; ``~`` is expanded. One that ends in .safetensors is read as
            :func:`~atss_ext.compat.published.read_published` says.
        map_location: as in :func:`torch.load`.

    Raises:
        FileNotFoundError: if there is no such file.
        pickle.UnpicklingError: if it is no checkpoint, or holds a class that is not allowed, in one sentence.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{filename} can not be found.')
    if path.endswith(SUFFIX):
        return read_published(path, map_location)
    # The fork's mmengine takes HistoryBuffer off the list again after each load of its own.
    allow_mmengine_classes()
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (UnpicklingError, EOFError) as error:
        raise UnpicklingError(explain_refusal(error, filename)) from None
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        # Other runtime errors (a device that is not there) say what is wrong by themselves.
        if isinstance(error, RuntimeError) and 'PytorchStreamReader' not in str(error):
            raise
        raise UnpicklingError(explain_refusal(error, filename)) from error
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint


def explain_refusal(error: BaseException, path: str) -> str:
    """One sentence for an error of ``torch.load`` on ``path``: what was refused and the way out.

    An error that :func:`load_from_local` raised already is this sentence.
    """
    text = str(error)
    if text.startswith('Checkpoint '):
        return text
    name = re.search(r'GLOBAL ([\w.]+)', text)
    stopped = re.search(rf'{_REFUSES} ([^\n]+)', text)
    if name or stopped:
        what = repr(name[1]) if name else stopped[1]  # type: ignore[index]
        return (
            f'Checkpoint {path} holds {what}, which no mmengine checkpoint needs and which could run code '
            'when it is loaded: use a file with weights only, written by '
            "torch.save({'state_dict': model.state_dict()}, path), or, if the class is yours, allow it with "
            'torch.serialization.add_safe_globals before loading'
        )
    # torch's own text goes on to recommend weights_only=False.
    reason = text.rpartition('WeightsUnpickler error: ')[2].strip()
    reason = re.split(r'\n|\. ', reason)[0] or type(error).__name__
    return (
        f'Checkpoint {path} cannot be read ({reason}): if it is damaged, copy or download it again, '
        'otherwise name a file that torch.save wrote'
    )


# --------------------------------------------------------------------------------- what is allowed

_REFUSES = 'atss_ext refuses'


def _refuse(what: str) -> NoReturn:
    raise UnpicklingError(f'{_REFUSES} {what}')


class _NumpyArray(np.ndarray):
    """What ``numpy.ndarray`` means in a checkpoint: a type to be rebuilt, not a function to be called."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _NumpyArray:
        _refuse('a call of numpy.ndarray')

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Save as a plain array: NumPy's own ``_reconstruct``, if someone allowed it, makes instances."""
        return np.asarray(self).__reduce_ex__(protocol)


def _reconstruct(subtype: type, shape: Any, typecode: Any) -> np.ndarray:
    """An array for the unpickler to fill, as NumPy's function of this name makes it."""
    if subtype not in (_NumpyArray, np.ndarray):
        _refuse('an array of another type than numpy.ndarray')
    return np.ndarray((0,), np.int8)


def _dtype(code: Any, *flags: Any) -> np.dtype:
    """NumPy's shared object of a numeric type; ``__setstate__`` does nothing to a shared one."""
    dtype = np.dtype(code) if isinstance(code, str) else np.dtype(object)
    if dtype.kind not in 'biufc' or dtype is not np.dtype(dtype.type):
        _refuse(f'an array of data type {code!r}')
    return dtype


def _encode(text: str, encoding: str) -> bytes:
    """How pickle writes bytes. torch allows it by itself from 2.5 on."""
    if encoding != 'latin1':
        _refuse(f'bytes encoded as {encoding!r}')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    """How pickle writes the content of an empty array."""
    return b''


def _scalar(dtype: Any, raw: Any = None) -> np.generic:
    """A NumPy scalar from its bytes."""
    if not isinstance(dtype, np.dtype) or dtype.kind not in 'biufc':
        _refuse('a scalar that is no number')
    return np.frombuffer(raw, dtype)[0]


def _one_cycle(*args: Any) -> NoReturn:
    """Stands for mmengine's scheduler class, so that allowing its name does not import mmengine.optim."""
    _refuse(f'a call of {_ONE_CYCLE}')


def _getattr(owner: Any, name: Any) -> Callable[..., Any]:
    """``getattr`` for the methods that an mmengine checkpoint names, and for nothing else."""
    if _named_like(owner, 'mmengine.logging.history_buffer.HistoryBuffer') and name in _STATISTICS:
        return getattr(import_module('mmengine.logging').HistoryBuffer, name)
    if _named_like(owner, _ONE_CYCLE) and name in _ANNEALING:
        return getattr(import_module('mmengine.optim.scheduler.param_scheduler').OneCycleParamScheduler, name)
    _refuse(f'attribute {name!r} of {getattr(owner, "__qualname__", type(owner).__qualname__)}')


def _named_like(owner: Any, name: str) -> bool:
    return f'{getattr(owner, "__module__", "")}.{getattr(owner, "__qualname__", "")}' == name


def _under_name(stand_in: Any, name: str) -> Any:
    """``stand_in`` as the object that a pickle means by ``name``: torch looks at these attributes."""
    named: Any = stand_in if isinstance(stand_in, type) else partial(stand_in)
    named.__module__, _, named.__name__ = name.rpartition('.')
    named.__qualname__ = named.__name__
    return named


@lru_cache(maxsize=1)
def _safe_globals() -> tuple[Any, ...]:
    """Every entry of the allow-list, made once: torch recognises them by identity."""
    entries = [
        _under_name(_getattr, 'builtins.getattr'),
        _under_name(_encode, '_codecs.encode'),
        _under_name(_no_bytes, 'builtins.bytes'),
        _under_name(_dtype, 'numpy.dtype'),
        _under_name(_one_cycle, _ONE_CYCLE),
        *_numpy_array_entries(),
        # The types of _dtype's results, which pickle fills like any other object.
        *{type(np.dtype(code)) for code in '?bBhHiIlLqQefdFD'},
    ]
    for core in ('numpy.core', 'numpy._core'):
        entries.append(_under_name(_reconstruct, f'{core}.multiarray._reconstruct'))
        entries.append(_under_name(_scalar, f'{core}.multiarray.scalar'))
    with suppress(ImportError):
        entries.append(import_module('mmengine.logging').HistoryBuffer)
    return tuple(entries)


def _numpy_array_entries() -> list[Any]:
    """What makes ``numpy.ndarray`` fillable.

    torch fills an object if its type is on the list, under whatever name, and calls what a pickle names.
    The real class therefore stands under a name that no pickle can spell (they end at a line break).
    torch before 2.6 knows no names beside the class's own: there it is listed as it is.
    """
    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        return [np.ndarray]
    return [_under_name(_NumpyArray, 'numpy.ndarray'), (np.ndarray, 'numpy\nndarray')]
