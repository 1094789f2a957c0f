"""Which of two implementations gives the figures: a fast library where it is installed, or the reference.

Both give the same. ``fast`` is hotcoco (Rust, MIT licence); ``reference`` is pycocotools for COCO's and
CODA's figures and :mod:`atss_ext.evaluation.lvis.figures` for LVIS's. docs/evaluation.md has the figures
hotcoco was chosen for.
"""

import importlib
from functools import cache
from types import ModuleType
from typing import Literal, get_args

from mmengine.logging import MMLogger

Backend = Literal['fast', 'reference']

LIBRARY = 'hotcoco'
"""What the fast back-end is made of."""

MISSING = (
    f'{LIBRARY} is not installed; the reference gives the same figures, slower; run pip install {LIBRARY}'
)
"""What is said once where the fast back-end would have been taken."""


def check_backend(backend: str | None) -> None:
    """Refuse a back-end that does not exist, or is not installed.

    Raises:
        ValueError: an unknown name, or 'fast' without its library.
    """
    if backend is not None and backend not in get_args(Backend):
        raise ValueError(f"backend must be 'fast', 'reference' or None, but is {backend!r}.")
    if backend == 'fast' and not fast_available():
        raise ValueError(
            f"backend='fast' needs {LIBRARY}, which is not installed; run pip install {LIBRARY}, or take "
            "backend='reference'"
        )


def fast_available() -> bool:
    """Whether the library of the fast back-end can be imported."""
    return fast_library() is not None


@cache
def fast_library() -> ModuleType | None:
    """The library of the fast back-end, None where it is not installed."""
    try:
        return importlib.import_module(LIBRARY)
    except ImportError:
        return None


def choose_backend(backend: Backend | None) -> Backend:
    """The back-end to use: the demanded one, or the fast one where there is one; else says so once.

    Raises:
        ValueError: an unknown back-end, or a fast one that is not installed.
    """
    check_backend(backend)
    if backend is not None:
        return backend
    if fast_available():
        return 'fast'
    say_missing()
    return 'reference'


@cache
def say_missing() -> None:
    """Log once that the fast back-end is missing."""
    logger: MMLogger = MMLogger.get_current_instance()
    logger.warning(MISSING)
