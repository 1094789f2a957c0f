"""From tokens to text, and the characters each token stands for."""

from collections.abc import Sequence
from typing import Any


def decode(tokenizer: Any, token_ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """Decode tokens and find the characters of each.

    What a token means depends on those before it (a space that is dropped at the start, a character whose
    bytes lie in several tokens), so every beginning of the sequence is decoded, and a token owns the
    characters by which its own goes on. A character of several tokens belongs to the one that completes it;
    before, the decoder shows a replacement character, which the text does not have there.

    Args:
        tokenizer: of transformers.
        token_ids: T tokens.

    Returns:
        the text without special tokens, and T pairs (start, end) into it. They tile the text: pieces in order
        join to it, and a token without a character of its own has start == end.
    """
    text = _decode(tokenizer, token_ids)
    spans = []
    end = 0
    for count in range(1, len(token_ids) + 1):
        start = end
        if end < len(text):
            end = _agreement(_decode(tokenizer, token_ids[:count]), text, end)
        spans.append((start, end))
    return text, spans


def _decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    decoded: str = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return decoded


def _agreement(beginning: str, text: str, known: int) -> int:
    """How many characters of ``text`` the ``beginning`` already shows; never less than ``known``."""
    if not beginning.startswith(text[:known]):
        return known
    stop = min(len(beginning), len(text))
    while known < stop and beginning[known] == text[known]:
        known += 1
    return known
