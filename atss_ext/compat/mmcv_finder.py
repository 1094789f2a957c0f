"""An import finder that offers ``mmcv._ext`` where nothing else does.

mmcv reaches its compiled ops through one module, ``mmcv._ext``. ``mmcv-lite`` and a wheel of
mmcv built without torch lack it, and with it ``import mmcv.ops`` and ``import mmdet.models``.
The finder fills the gap with :mod:`atss_ext.compat.mmcv_ops` and never shadows a compiled mmcv:
it stands last on ``sys.meta_path`` and asks every other finder, later ones too, before it answers.

This file serves twice: as part of the package, and as a copy in site-packages that a ``.pth`` line
starts with every interpreter of the environment. It therefore imports next to nothing and never
raises. Off switch for both: the environment variable ``ATSS_EXT_NO_MMCV_FINDER=1`` (any value but
the empty one and ``0``).
"""

import os
import sys

# ``typing`` would cost every interpreter milliseconds; type checkers take this name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

MODULE = 'mmcv._ext'
BACKING = 'atss_ext.compat.mmcv_ops'
OFF_SWITCH = 'ATSS_EXT_NO_MMCV_FINDER'
# The two copies of this file have two classes of one name: they know each other by this attribute.
MARKER = 'offers_mmcv_ext_of_atss_ext'


def switched_off() -> bool:
    """Whether the environment variable turns the finder off."""
    return os.environ.get(OFF_SWITCH, '') not in ('', '0')


def install() -> None:
    """Append the finder to ``sys.meta_path``, once, unless it is switched off."""
    if not switched_off() and not any(hasattr(finder, MARKER) for finder in sys.meta_path):
        sys.meta_path.append(MmcvExtFinder())  # type: ignore[arg-type]


class MmcvExtFinder:
    """Meta-path finder for the one name ``mmcv._ext``."""

    offers_mmcv_ext_of_atss_ext = True

    def __init__(self) -> None:
        self._asking: set[int] = set()

    def find_spec(
        self, fullname: str, path: 'Sequence[str] | None' = None, target: 'ModuleType | None' = None
    ) -> 'ModuleSpec | None':
        """The spec of any other finder if one has it, else ours, else None."""
        if fullname != MODULE or switched_off():
            return None
        from _thread import get_ident

        # A finder that asks all others as well would ask this one again, without end.
        if get_ident() in self._asking:
            return None
        self._asking.add(get_ident())
        try:
            for finder in sys.meta_path:
                if not hasattr(finder, MARKER) and hasattr(finder, 'find_spec'):
                    spec = finder.find_spec(fullname, path, target)
                    if spec is not None:
                        return spec
            return self._own_spec()
        finally:
            self._asking.discard(get_ident())

    def _own_spec(self) -> 'ModuleSpec | None':
        if not _backing_exists():
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(MODULE, MmcvExtLoader(), origin=BACKING)  # type: ignore[arg-type]


class MmcvExtLoader:
    """Loader that fills ``mmcv._ext`` on its first import, and imports torchvision only then."""

    def create_module(self, spec: 'ModuleSpec') -> 'ModuleType | None':
        """Leave the module object to the import system."""
        return None

    def exec_module(self, module: 'ModuleType') -> None:
        """Put the functions of :mod:`atss_ext.compat.mmcv_ops` into ``module``.

        Raises:
            ModuleNotFoundError: where that module does not import; mmcv and mmengine treat it
                like a missing ``mmcv._ext``.
        """
        from importlib import import_module

        try:
            backing = import_module(BACKING)
        except Exception as error:
            raise ModuleNotFoundError(
                f'{MODULE} is missing and its stand-in {BACKING} does not import '
                f'({type(error).__name__}: {error}): repair that, install a compiled mmcv, '
                f'or set {OFF_SWITCH}=1',
                name=MODULE,
            ) from error
        backing.populate(module)


def _backing_exists() -> bool:
    """Whether the files behind the stand-in are there, found without importing any of them."""
    from importlib.machinery import PathFinder
    from importlib.util import find_spec

    try:
        parent = find_spec('atss_ext')
        name = 'atss_ext'
        for part in BACKING.split('.')[1:]:
            if parent is None or parent.submodule_search_locations is None:
                return False
            name = f'{name}.{part}'
            parent = PathFinder.find_spec(name, list(parent.submodule_search_locations))
    except (ImportError, ValueError, AttributeError, KeyError):
        # KeyError: a folder without __init__.py, whose spec asks for a parent that was never imported.
        return False
    return parent is not None
