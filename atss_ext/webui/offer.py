"""What the page lets people choose from: lists of the command line, each file under a short name."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atss_ext.cli.errors import SENTENCES
from atss_ext.cli.options import config_path
from atss_ext.datasets.checks import nearest
from atss_ext.errors import UserError


@dataclass(frozen=True)
class Offer:
    """Server-side files by the names that the page shows.

    Configs are Python and checkpoints are read from the server's disk: a browser sends a name of these lists
    and never a path.

    Attributes:
        detectors: configs of trained detectors.
        checkpoints: their weights.
        discoverers: configs of VL-SAM.
        assigners: configs whose assignment is shown.
    """

    detectors: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    discoverers: Mapping[str, str] = field(default_factory=dict)
    assigners: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_files(
        cls,
        detectors: Iterable[str] = (),
        checkpoints: Iterable[str] = (),
        discoverers: Iterable[str] = (),
        assigners: Iterable[str] = (),
    ) -> 'Offer':
        """The lists from paths of the command line; configs may be written ``package::path``.

        Raises:
            UserError: a file does not exist.
        """
        offer = cls(
            short_names(map(config_path, detectors)),
            short_names(map(os.path.expanduser, checkpoints)),
            short_names(map(config_path, discoverers)),
            short_names(map(config_path, assigners)),
        )
        for path in offer.checkpoints.values():
            if not os.path.isfile(path):
                raise UserError(f'checkpoint {path} does not exist; correct the path')
        return offer


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Each path under its file name, with as many of its folders before it as tell it from the others."""
    whole = list(dict.fromkeys(os.path.abspath(path) for path in paths))
    return {_shortest(path, whole): path for path in whole}


def _shortest(path: str, others: list[str]) -> str:
    parts = Path(path).parts
    for count in range(1, len(parts)):
        if sum(Path(other).parts[-count:] == parts[-count:] for other in others) == 1:
            return '/'.join(parts[-count:])
    return path


@contextlib.contextmanager
def called(path: str | Path, name: str) -> Iterator[None]:
    """Let sentences call a file by its name: where the server keeps it tells people nothing."""
    try:
        yield
    except SENTENCES as error:
        error.args = (str(error).replace(str(path), name),)
        raise


def pick(kind: str, offered: Mapping[str, str], name: str | None) -> str:
    """The file behind a name.

    Args:
        kind: what it is, for the sentence.
        offered: a list of :class:`Offer`.
        name: as the browser sends it.

    Raises:
        UserError: nothing is chosen, or the page does not offer it.
    """
    if not name:
        raise UserError(f'no {kind} is chosen; choose one from the list')
    if not isinstance(name, str) or name not in offered:
        raise UserError(
            f'{kind} {str(name)[:80]!r} is not offered here{nearest(str(name)[:80], offered)}; choose one '
            'from the list'
        )
    return offered[name]
