"""The files a config inherits from."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config


@dataclass(frozen=True)
class ConfigFile:
    """A config file and those it names in ``_base_``.

    Attributes:
        path: the file.
        name: as the heir writes it (``../_base_/x.py``, ``mmdet::atss/x.py``).
        bases: the files it inherits from, in order.
    """

    path: Path
    name: str
    bases: tuple['ConfigFile', ...]

    def flat(self) -> list[Path]:
        """Return all files, this one first, bases after their heirs."""
        return list(dict.fromkeys([self.path, *(path for base in self.bases for path in base.flat())]))

    def lines(self, depth: int = 0) -> list[str]:
        """Return an indented listing."""
        arrow = '  ' * depth
        own = f'{arrow}{self.name}' + (f'  ({self.path})' if self.name != str(self.path) else '')
        return [own, *(line for base in self.bases for line in base.lines(depth + 1))]


def read_chain(path: str | Path, name: str | None = None) -> ConfigFile:
    """Follow ``_base_`` as mmengine does, ``package::path`` included."""
    file = Path(path).resolve()
    names = [] if is_lazy(file) else Config._get_base_files(str(file))
    bases = tuple(read_chain(Config._get_cfg_path(base, str(file))[0], base) for base in names)
    return ConfigFile(file, name or str(path), bases)


def is_lazy(file: Path) -> bool:
    """Return whether a config is of mmengine's pure Python style (``with read_base():``)."""
    return Config._is_lazy_import(str(file))
