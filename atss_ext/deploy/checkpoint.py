"""The one reader of checkpoints that others wrote, for all that is made of one."""

from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atss_ext.compat.checkpoints import load_from_local
from atss_ext.compat.published import described, is_text
from atss_ext.errors import UserError, first_line


class Checkpoint(NamedTuple):
    """What a detector needs of a checkpoint.

    Attributes:
        tensors: by their names in the model, without a wrapper's ``module.``.
        dataset_meta: ``classes`` and, where known, ``palette`` (:func:`atss_ext.compat.published.described`);
            empty where the file has no class names.
        config: text of the resolved config, never run; None where the file has none.
    """

    tensors: dict[str, Tensor]
    dataset_meta: dict[str, Any]
    config: str | None


def read_checkpoint(path: str) -> Checkpoint:
    """Read a local checkpoint without running what it holds, and check all that is taken from it.

    Args:
        path: a file of ``torch.save``, or one that ends in .safetensors.

    Raises:
        UserError: it is missing, cannot be read, or holds something else than tensors and class names.
    """
    content = _load(path)
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    try:
        # mmdet 2 kept them beside the rest.
        older = {key: meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}
        dataset_meta = described(meta.get('dataset_meta') or older)
    except ValueError as error:
        raise UserError(
            f'checkpoint {path} has class names that cannot be read ({error}); remove meta.dataset_meta from '
            'it, and those of the config are taken'
        ) from None
    config = meta.get('cfg')
    return Checkpoint(_tensors(content, path), dataset_meta, config if is_text(config) else None)


def _load(path: str) -> Mapping[Any, Any]:
    try:
        content = load_from_local(path, map_location='cpu')
    except FileNotFoundError:
        raise UserError(f'checkpoint {path} does not exist; correct the path') from None
    except UnpicklingError as error:
        raise UserError(str(error)) from None
    except (OSError, RuntimeError) as error:
        raise UserError(f'checkpoint {path} cannot be read ({first_line(error)}); copy it again') from error
    if not isinstance(content, Mapping):
        raise UserError(
            f'checkpoint {path} holds a {type(content).__name__} instead of weights; name another'
        )
    return content


def _tensors(content: Mapping[Any, Any], path: str) -> dict[str, Tensor]:
    state = content.get('state_dict', content)
    problem = _problem(state)
    if problem:
        raise UserError(f'checkpoint {path} holds no state_dict of tensors ({problem}); name one of mmengine')
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        own = name.removeprefix('module.')
        if own in tensors:
            raise UserError(
                f'checkpoint {path} has both module.{own} and {own}, which are one name without the wrapper; '
                'remove the wrong one'
            )
        tensors[own] = value.detach()
    return tensors


def _problem(state: Any) -> str | None:
    if not isinstance(state, Mapping):
        return f'it is a {type(state).__name__}'
    for name, value in state.items():
        if not is_text(name):
            shown = ascii(name)[:80] if isinstance(name, str | int) else f'a {type(name).__name__}'
            return f'{shown} is no name'
        if not isinstance(value, Tensor):
            return f'{name[:80]!r} is no tensor'
        # Without values, or with such as no detector has.
        plain = value.layout is torch.strided and not (value.is_meta or value.is_quantized)
        if not plain or value.is_complex():
            return f'{name[:80]!r} is no plain tensor'
    return None if state else 'it is empty'
