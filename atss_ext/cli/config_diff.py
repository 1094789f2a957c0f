"""Where two configs differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from atss_ext.cli.config_keys import Position, dotted

_ABSENT = object()


@dataclass(frozen=True)
class Change:
    """One key that was added (``old`` absent), removed (``new`` absent) or changed."""

    path: str
    old: Any = _ABSENT
    new: Any = _ABSENT

    def __str__(self) -> str:
        if self.old is _ABSENT:
            return f'+ {self.path} = {self.new!r}'
        if self.new is _ABSENT:
            return f'- {self.path} = {self.old!r}'
        return f'~ {self.path}: {self.old!r} -> {self.new!r}'


def diff(old: Any, new: Any, path: Position = ()) -> Iterator[Change]:
    """Yield what turns one nested value into another.

    Dicts are compared key by key, lists of dicts element by element, after aligning them: an
    inserted transform of a pipeline is one addition. What an heir drops with ``_delete_`` shows as
    removed.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            if key == '_scope_':  # written by mmengine wherever a base is another package's
                continue
            if key not in new:
                yield Change(dotted((*path, key)), old=old[key])
            elif key not in old:
                yield Change(dotted((*path, key)), new=new[key])
            else:
                yield from diff(old[key], new[key], (*path, key))
    elif _has_dicts(old) and _has_dicts(new):
        yield from _diff_lists(old, new, path)
    elif old != new or type(old) is not type(new):
        yield Change(dotted(path), old, new)


def _has_dicts(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)


def _diff_lists(old: Sequence[Any], new: Sequence[Any], path: Position) -> Iterator[Change]:
    matcher = SequenceMatcher(
        None, [repr(item) for item in old], [repr(item) for item in new], autojunk=False
    )
    for tag, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        if tag == 'equal':
            continue
        pairs = min(old_end - old_start, new_end - new_start)
        for step in range(pairs):
            yield from diff(old[old_start + step], new[new_start + step], (*path, new_start + step))
        for index in range(old_start + pairs, old_end):
            yield Change(dotted((*path, index)), old=old[index])
        for index in range(new_start + pairs, new_end):
            yield Change(dotted((*path, index)), new=new[index])
