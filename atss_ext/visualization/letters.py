"""Names of any language on pictures, with the fonts there are and without a warning."""

import functools
import unicodedata
from typing import NamedTuple

from matplotlib import font_manager

# Installed on many systems; each fills gaps of the one before. matplotlib brings the first along.
FAMILIES = (
    'DejaVu Sans',
    'Noto Sans CJK SC',
    'Noto Sans CJK JP',
    'Noto Sans SC',
    'Source Han Sans SC',
    'WenQuanYi Micro Hei',
    'WenQuanYi Zen Hei',
    'Droid Sans Fallback',
    'PingFang SC',
    'Hiragino Sans',
    'Microsoft YaHei',
    'Malgun Gothic',
    'Arial Unicode MS',
    'Noto Sans',
    'Noto Sans Devanagari',
    'Noto Sans Thai',
    'Noto Emoji',
    'Unifont',
)
_MISSING = '\u25a1'  # a white square, which the first font has
_SILENT = ('Cc', 'Cf', 'Cs', 'Mn', 'Me')  # controls, joiners and marks: left out where no font has them


class Font(NamedTuple):
    """An installed font.

    Attributes:
        family: its name for matplotlib.
        path: its file.
        letters: code points it has.
    """

    family: str
    path: str
    letters: frozenset[int]


@functools.lru_cache(maxsize=1)
def fonts() -> tuple[Font, ...]:
    """The fonts of :data:`FAMILIES` that are installed."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    found = []
    for family in FAMILIES:
        if family in installed:
            path = font_manager.findfont(family, fallback_to_default=False)
            letters = frozenset(font_manager.get_font(path).get_charmap())
            found.append(Font(family, str(path), letters))
    return tuple(found)


@functools.lru_cache(maxsize=1)
def _known_letters() -> frozenset[int]:
    return frozenset(code for font in fonts() for code in font.letters)


def printable(text: str, limit: int = 40) -> str:
    """A text on one line that the installed fonts can print.

    Args:
        text: any; letters that no font has become squares.
        limit: most letters, wide ones counting twice; a longer text ends in an ellipsis.
    """
    known = _known_letters()
    kept: list[str] = []
    width = 0
    for letter in ' '.join(unicodedata.normalize('NFC', text).split()):
        if ord(letter) not in known:
            if unicodedata.category(letter) in _SILENT:
                continue
            letter = _MISSING
        if width + _room(letter) > limit:
            while kept and width > limit - 1:
                width -= _room(kept.pop())
            return ''.join(kept).rstrip() + '\u2026'
        kept.append(letter)
        width += _room(letter)
    return ''.join(kept)


def _room(letter: str) -> int:
    return 2 if unicodedata.east_asian_width(letter) in 'WF' else 1


def literal(text: str) -> str:
    """A text in which matplotlib finds no formula."""
    return text.replace('$', r'\$')


def font_file(text: str) -> str:
    """The file of the font that has most of a text's letters, the first among equals."""
    return max(fonts(), key=lambda font: sum(ord(letter) in font.letters for letter in text)).path
