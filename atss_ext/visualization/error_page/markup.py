"""Pieces of HTML whose text is escaped."""

from collections.abc import Iterable
from html import escape
from typing import Any

BLANK = '\N{EN DASH}'
"""Stands where a value does not exist."""


def text(value: Any) -> str:
    """Text or an attribute's value, escaped."""
    return escape(str(value), quote=True)


def tag(name: str, inner: str = '', **attributes: Any) -> str:
    """One element around ready HTML; attributes are escaped, ``_`` in their names stands for ``-``."""
    given = {key.rstrip('_').replace('_', '-'): value for key, value in attributes.items()}
    written = ''.join(f' {key}="{text(value)}"' for key, value in given.items() if value is not None)
    return f'<{name}{written}>{inner}</{name}>'


def figure(path: str, value: Any, name: str = 'td', whole: int | None = None, **attributes: Any) -> str:
    """A cell that holds one figure of the report; ``path`` says which, so that scripts can read it.

    With ``whole`` the share of it is shown behind a count.
    """
    share = f' ({100 * value / whole:.1f}\N{NO-BREAK SPACE}%)' if whole else ''
    return tag(name, text(shown(value) + share), data_figure=path, data_value=plain(value), **attributes)


def shown(value: Any) -> str:
    """A figure for readers: shares and averages in per cent, counts with separators."""
    if value is None:
        return BLANK
    return f'{100 * value:.1f} %' if isinstance(value, float) else f'{value:,}'


def plain(value: Any) -> str:
    """A figure for programs and for sorting; empty if it does not exist."""
    return '' if value is None else repr(value)


def table(caption: str, heads: Iterable[str], rows: Iterable[str], **attributes: Any) -> str:
    """A table that scrolls in its own frame; heads and rows are ready HTML."""
    head = tag('thead', tag('tr', ''.join(heads)))
    body = tag('tbody', '\n'.join(rows))
    inner = tag('table', tag('caption', text(caption)) + head + body, **attributes)
    return tag('div', inner, class_='scroll', tabindex=0, role='region', aria_label=caption)


def section(identity: str, title: str, *parts: str) -> str:
    """A part of the page under its heading."""
    heading = tag('h2', text(title), id=f'{identity}-title')
    return tag('section', heading + '\n'.join(parts), id=identity, aria_labelledby=f'{identity}-title')
