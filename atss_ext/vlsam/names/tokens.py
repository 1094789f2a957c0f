"""Text to words with their places in it."""

import re
import unicodedata
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

# Longer words are no words: a model that repeats itself without end.
MAX_LETTERS = 48
# Markup: <ref>dog</ref>, <box>.
_TAG = re.compile(r'<[^<>\n]{1,60}>')
# By their names, as many look alike.
_OPENING = '"\N{LEFT DOUBLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}«「\''
_CLOSING = '"\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}»」\''
_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_HYPHENS = '-\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FULLWIDTH HYPHEN-MINUS}'
_SPACES = _OPENING + _CLOSING + '„`\N{ACUTE ACCENT}*_~『』'
_SENTENCE_ENDS = (
    '.!?;…\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029।؟。｡'
    '\N{FULLWIDTH EXCLAMATION MARK}\N{FULLWIDTH QUESTION MARK}\N{FULLWIDTH SEMICOLON}'
)
_JOINERS = '\u200c\u200d'
# What is written on a thing is no thing: a sign that says "STOP", a dog named "Max".
_WRITING = re.compile(
    r'\b(?:says?|saying|reads?|reading|words?|text|letters|spelling|labell?ed|written|named|called|titled)'
    rf'[ :,]{{1,3}}[{_OPENING}][^{_CLOSING}\n]{{1,80}}[{_CLOSING}]'
)
# In a text's shape: l begins a word, m goes on with it, - and ' join.
_WORD = re.compile("l[lm]*(?:[-'][lm]+)*")


class Gap(IntEnum):
    """What stands between a word and the one before it."""

    SPACE = 0
    COMMA = 1  # or a bracket, a colon, a dash, a slash, an emoji: the phrase ends
    SENTENCE = 2  # a full stop or a line's end: the clause ends


class Word(NamedTuple):
    """A word of a text.

    Attributes:
        text: in lower case, without compatibility forms (Unicode NFKC).
        start: its first character in the text.
        end: one past its last.
        gap: before it.
        possessive: it says whose ("man's", "dogs'").
    """

    text: str
    start: int
    end: int
    gap: Gap
    possessive: bool = False


def split_words(text: str) -> Iterator[Word]:
    """The words of a text, in order; time and memory grow with its length.

    Words are runs of letters, digits and marks of any script; hyphens and apostrophes between them join.
    Quotes, stars and underscores count as spaces: markup may stand inside of a name.
    """
    for pattern in (_TAG, _WRITING):
        text = pattern.sub(lambda match: ',' * len(match[0]), text)
    # One character a character: what matches in the shape lies at the same place in the text.
    shape = text.translate({ord(char): _shape(char) for char in set(text)})
    last, skipped = 0, False
    for match in _WORD.finditer(shape):
        start, end = match.span()
        between = shape[last:start]
        parted = ',' in between or '-' in between
        gap = Gap.SENTENCE if '.' in between or not last else Gap.COMMA if parted else Gap.SPACE
        last = end
        word = _clean(text[start:end]) if end - start <= MAX_LETTERS else ''
        if not word:
            skipped = True
            continue
        if skipped:  # What was left out parts its neighbours.
            gap, skipped = max(gap, Gap.COMMA), False
        # "The man's", "the dogs' bowls"; but "'dogs' and 'cats'".
        owners = word.endswith('s') and shape[end : end + 2] == "' " and shape[max(start - 1, 0)] != "'"
        yield Word(word, start, end, gap, owners or word.endswith("'s"))


def _shape(char: str) -> str:
    """What a character does: one of "lm-' ,."."""
    if char in _SENTENCE_ENDS:
        return '.'
    if char in _APOSTROPHES:
        return "'"
    if char in _HYPHENS:
        return '-'
    if char in _SPACES or char.isspace():
        return ' '
    category = unicodedata.category(char)
    if category[0] in 'LN':
        return 'l'
    return 'm' if category[0] == 'M' or category == 'Cf' else ','


def _clean(word: str) -> str:
    """Lower case, one form for what looks the same; without invisible characters but those that join."""
    plain = ''.join("'" if char in _APOSTROPHES else '-' if char in _HYPHENS else char for char in word)
    word = unicodedata.normalize('NFKC', plain).lower()
    return ''.join(char for char in word if char in _JOINERS or unicodedata.category(char) != 'Cf')
