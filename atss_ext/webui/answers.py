"""What the page says: a sentence, or why there is none."""

import html
import sys
import traceback
from collections.abc import Callable
from typing import Any

from atss_ext.cli.errors import explain

BUG = 'Something went wrong on the server; its terminal says what, and the page goes on.'


def said(sentence: str) -> str:
    """A sentence as HTML; nothing in it is markup."""
    return f'<div class="answer" role="status">{html.escape(sentence)}</div>' if sentence else ''


def refused(sentence: str) -> str:
    """What went wrong, as HTML."""
    text = html.escape(' '.join(sentence.split()))
    return f'<div class="answer refused" role="alert">{text[:1].upper() + text[1:]}</div>'


def attempt(act: Callable[[], tuple[Any, ...]], blanks: tuple[Any, ...]) -> tuple[Any, ...]:
    """Do it; what fails becomes a sentence beside empty fields, and never a traceback.

    Args:
        act: returns a sentence and the contents of the fields.
        blanks: contents of the fields where it fails.

    Returns:
        the sentence as HTML, and the contents.
    """
    try:
        sentence, *contents = act()
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            traceback.print_exc(file=sys.stderr)
        return (refused(sentence or BUG), *blanks)
    return (said(sentence), *contents)
