"""Makes mmengine resolve ``_base_ = 'atss_ext::...'``.

mmengine keeps a literal table of the packages whose configs may be inherited and offers no way to enter
it; anything else is refused before a config could import its package. This module adds our one row the
moment ``mmengine.config.utils`` is executed, and leaves nothing behind.

Like :mod:`atss_ext.compat.mmcv_finder` it serves twice: as part of the package, and as a copy in
site-packages that a ``.pth`` line starts with every interpreter, so that mmdet's own commands know the
scope too. It imports next to nothing. Off switch: the environment variable ``ATSS_EXT_NO_CONFIG_SCOPE=1``
(any value but the empty one and ``0``).
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

MODULE = 'mmengine.config.utils'
SCOPE = 'atss_ext'
OFF_SWITCH = 'ATSS_EXT_NO_CONFIG_SCOPE'
# The packaged file and its copy have two classes of one name: they know each other by this attribute.
MARKER = 'adds_config_scope_of_atss_ext'


def install() -> None:
    """Add the scope now if mmengine is loaded already, else when it is; once, unless switched off."""
    if os.environ.get(OFF_SWITCH, '') not in ('', '0'):
        return
    if MODULE in sys.modules:
        add_scope(sys.modules[MODULE])
    elif not any(hasattr(finder, MARKER) for finder in sys.meta_path):
        sys.meta_path.insert(0, ConfigScopeFinder())  # type: ignore[arg-type]


def add_scope(module: 'ModuleType') -> None:
    """Enter our package into mmengine's table, if this mmengine still has it."""
    table = getattr(module, 'MODULE2PACKAGE', None)
    if isinstance(table, dict):
        table.setdefault(SCOPE, SCOPE)


class ConfigScopeFinder:
    """Meta-path finder that lets the others find ``mmengine.config.utils`` and watches its execution."""

    adds_config_scope_of_atss_ext = True

    def find_spec(
        self, fullname: str, path: 'Sequence[str] | None' = None, target: 'ModuleType | None' = None
    ) -> 'ModuleSpec | None':
        """The spec any other finder has, with its loader watched."""
        if fullname != MODULE:
            return None
        for finder in sys.meta_path:
            if hasattr(finder, MARKER) or not hasattr(finder, 'find_spec'):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = WatchedLoader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None


class WatchedLoader:
    """Hands everything to the module's own loader and adds the scope after it ran."""

    def __init__(self, loader: 'Loader', finder: ConfigScopeFinder) -> None:
        self.loader = loader
        self.finder = finder

    def create_module(self, spec: 'ModuleSpec') -> 'ModuleType | None':
        """What the own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: 'ModuleType') -> None:
        """Run the module as if nobody watched, then add the scope and stop watching."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        add_scope(module)
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)  # type: ignore[arg-type]
