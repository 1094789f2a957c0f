"""Which keys a registered class or function takes."""

import ast
import functools
import importlib
import inspect
import textwrap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mmengine.registry import Registry, root

ROOTS: tuple[Registry, ...] = tuple(value for value in vars(root).values() if isinstance(value, Registry))


def resolve(kind: Any, scope: str) -> list[Callable[..., Any]]:
    """Return what a config's ``type`` may stand for.

    Args:
        kind: a registered name, ``scope.Name``, a dotted path of a module's object, or the object.
        scope: the config's default scope.

    Returns:
        Every class or function of the name, one a registry at most (a name may stand in several);
        empty where there is none.
    """
    if not isinstance(kind, str):
        return [kind] if callable(kind) else []
    prefix, _, name = kind.rpartition('.')
    _import_registry(prefix or scope)
    found = [_find(registry, prefix, name, scope) for registry in ROOTS]
    objects = list(dict.fromkeys(item for item in found if item is not None))
    return objects or _from_path(prefix, name)


def known_names(scope: str) -> set[str]:
    """Return every registered name of a scope and its parents."""
    _import_registry(scope)
    names: set[str] = set()
    for registry in ROOTS:
        node: Registry | None = registry.children.get(scope, registry)
        while node is not None:
            names |= set(node.module_dict)
            node = node.parent
    return names


def _find(registry: Registry, prefix: str, name: str, scope: str) -> Any:
    if prefix:
        node = registry.children.get(prefix, registry if prefix == registry.scope else None)
    else:
        node = registry.children.get(scope, registry)
    while node is not None:
        node.import_from_location()
        if name in node.module_dict:
            return node.module_dict[name]
        node = None if prefix else node.parent
    return None


@functools.cache
def _import_registry(scope: str) -> None:
    # A type of a package that is not there is reported as one that is not found.
    with suppress(ImportError):
        importlib.import_module(f'{scope}.registry')


def _from_path(prefix: str, name: str) -> list[Callable[..., Any]]:
    try:
        value = getattr(importlib.import_module(prefix), name, None) if prefix else None
    except ImportError:
        return []
    return [value] if callable(value) else []


@functools.cache
def parameters(kind: Callable[..., Any]) -> frozenset[str] | None:
    """Return the keyword arguments that a class or function takes, None where any is taken.

    ``**kwargs`` are followed: through ``super().__init__(**kwargs)`` to the next class, and into
    constant names (``kwargs.pop('name')``). Used in any other way, they take everything.
    """
    if not inspect.isclass(kind):
        named, keyword = _signature(kind)
        return None if keyword else named
    names: frozenset[str] = frozenset()
    behind = ''  # the class that super(Class, self) names, behind which the next one is looked for
    for owner in kind.__mro__:
        if behind:
            behind = '' if owner.__name__ == behind else behind
            continue
        function = vars(owner).get('__init__')
        if function is None or owner is object:
            continue
        named, keyword = _signature(function)
        names |= named - {'self'} | _deprecated_names(function)
        if keyword is None:
            return names
        use = _keyword_use(inspect.unwrap(function), keyword)
        names |= use.read
        if use.other:
            return None
        if not use.forwarded:
            return names
        behind = use.behind if use.behind != owner.__name__ else ''
    return names


def _signature(function: Callable[..., Any]) -> tuple[frozenset[str], str | None]:
    """Return the names of a function's parameters, and the name of its ``**kwargs``."""
    try:
        items = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # C functions
        return frozenset(), 'kwargs'
    named = (item.name for item in items if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY))
    return frozenset(named), next((item.name for item in items if item.kind is item.VAR_KEYWORD), None)


def _deprecated_names(function: Callable[..., Any]) -> set[str]:
    """Return the old names that mmcv's ``deprecated_api_warning`` still takes."""
    if not hasattr(function, '__wrapped__'):
        return set()
    return set(inspect.getclosurevars(function).nonlocals.get('name_dict', ()))


@dataclass
class _KeywordUse:
    read: set[str] = field(default_factory=set)
    forwarded: bool = False
    behind: str = ''
    other: bool = False


def _keyword_use(function: Callable[..., Any], keyword: str) -> _KeywordUse:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return _KeywordUse(other=True)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    use = _KeywordUse()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == keyword:
            _classify(node, parents, use)
    return use


def _classify(name: ast.Name, parents: dict[ast.AST, ast.AST], use: _KeywordUse) -> None:
    parent = parents[name]
    if isinstance(parent, ast.keyword) and parent.arg is None:
        call = parents[parent]
        target = call.func if isinstance(call, ast.Call) else None
        if isinstance(target, ast.Attribute) and target.attr == '__init__':
            use.forwarded = True
            use.behind = _super_class(target.value)
            return
    constant = _constant_access(name, parent, parents)
    if constant is None:
        use.other = True
    else:
        use.read.add(constant)


def _super_class(node: ast.AST) -> str:
    """Return ``Class`` of ``super(Class, self)``."""
    explicit = isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Name)
    return node.args[0].id if explicit else ''  # type: ignore[attr-defined]


def _constant_access(name: ast.Name, parent: ast.AST, parents: dict[ast.AST, ast.AST]) -> str | None:
    """Return ``x`` of ``kwargs['x']``, ``kwargs.pop('x')``, ``kwargs.get('x')`` and ``'x' in kwargs``."""
    key: ast.AST | None = None
    if isinstance(parent, ast.Subscript):
        key = parent.slice
    elif isinstance(parent, ast.Compare) and isinstance(parent.ops[0], ast.In | ast.NotIn):
        key = parent.left
    elif isinstance(parent, ast.Attribute) and parent.attr in ('get', 'pop', 'setdefault'):
        call = parents[parent]
        key = call.args[0] if isinstance(call, ast.Call) and call.args else None
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else None
