"""``--cfg-options`` and ``--amp`` put into a config; what they add is compared with what is built of it."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from atss_ext.cli.config_keys import ALWAYS, Position, allowed_keys, dotted
from atss_ext.cli.errors import note
from atss_ext.datasets.checks import nearest
from atss_ext.errors import UserError, first_line


def merge_options(cfg: Config, options: Mapping[str, Any], amp: bool = False) -> None:
    """Merge ``--cfg-options`` into a config, then ``--amp``, and check the keys they add.

    Keys are checked last, because a type on the same command line decides which of them are read. What
    the config holds for the type before and the new type does not take is dropped, which a note says:
    mmengine would hand it over, and the new class would fail on it.

    Args:
        cfg: the config, changed in place.
        options: values by dotted key.
        amp: whether to compute in mixed precision.

    Raises:
        UserError: a key that nothing would read, or that does not fit the config's structure.
    """
    before = cfg._cfg_dict  # mmengine merges into copies
    for key in options:
        _check_positions(before, key)
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError, AssertionError, AttributeError) as error:
        raise UserError(
            f'--cfg-options {" ".join(options)} does not fit the config ({first_line(error)})'
        ) from None
    if amp:
        use_amp(cfg)
    for key in options:
        _check_new_keys(cfg, before, key)
    for key in options:
        _drop_what_the_new_class_refuses(cfg, key)


def use_amp(cfg: Config) -> None:
    """Compute in mixed precision as mmdet's ``--amp`` does; a loss scale that is given stays."""
    wrapper = cfg.get('optim_wrapper')
    if isinstance(wrapper, Mapping) and wrapper.get('type') != 'AmpOptimWrapper':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _check_positions(node: Any, key: str) -> None:
    """Refuse a position beyond a list's end, and a name where a list needs a position."""
    path: Position = ()
    for part in key.split('.'):
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(
                    f"--cfg-options {key}: '{part}' is no position in {dotted(path)}, which has {len(node)} "
                    'elements; count from 0'
                )
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            return  # new, or mmengine's merge says what is wrong with it
        path = (*path, part)


def _check_new_keys(cfg: Config, before: Any, key: str) -> None:
    """Check the parts of an option that the config did not have, or had for another class."""
    node: Any = cfg._cfg_dict
    path: Position = ()
    for part in key.split('.'):
        if isinstance(node, list | tuple):
            index = int(part)
            node, before = node[index], before[index] if isinstance(before, list | tuple) else None
            path = (*path, index)
            continue
        if not isinstance(node, Mapping):
            return
        known_before = isinstance(before, Mapping) and part in before
        if not known_before or _maker(before) != _maker(node):
            _check_key(cfg, path, part, key)
        node, before = node.get(part), before[part] if known_before else None
        path = (*path, part)


def _maker(node: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what decides on the class: mmengine chooses a train_cfg without type by its ``by_epoch``."""
    return node.get('type'), node.get('by_epoch')


def _check_key(cfg: Config, path: Position, part: str, key: str) -> None:
    """Refuse a key that nothing reads; at the top, where a user's hook may read it, only a likely typo.

    Raises:
        UserError: with the nearest key that is read.
    """
    known, local = allowed_keys(cfg, path)
    if known is None or part in known | ALWAYS | local:
        return
    near = nearest(part, known if path else {*known, *map(str, cfg)})
    if not path and not near:
        note(f'--cfg-options {key}: the config has no {part}; it is there for code of your own to read')
        return
    where = f' of {dotted(path)}' if path else ''
    raise UserError(f"--cfg-options {key}: nothing reads a key '{part}'{where}{near}; correct the key")


def _drop_what_the_new_class_refuses(cfg: Config, key: str) -> None:
    """Drop what only the class before took, where an option chose another one."""
    *parents, last = key.split('.')
    if last not in ('type', 'by_epoch') or not parents:
        return
    node: Any = cfg._cfg_dict
    path: Position = ()
    for part in parents:
        step = int(part) if isinstance(node, list | tuple) else part
        node, path = node[step], (*path, step)
    known, local = allowed_keys(cfg, path)
    refused = [name for name in node if known is not None and name not in known | ALWAYS | local]
    for name in refused:
        del node[name]
    if refused:
        note(f'--cfg-options {key}: {dotted(path)} no longer takes {", ".join(refused)}, dropped')
