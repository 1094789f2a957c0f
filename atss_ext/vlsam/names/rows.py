"""From a name in an answer back to its tokens, and to the rows of the attention that speak for it."""

from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import Tensor

from atss_ext.vlsam.names.phrases import Mention
from atss_ext.vlsam.protocols import VlsamError

ROW_RULES = ('generating-first', 'generating', 'tokens', 'first', 'last', 'mean')
DEFAULT_ROW_RULE = 'generating'


def token_range(mention: Mention, spans: Sequence[tuple[int, int]]) -> range:
    """The tokens whose characters a mention is made of.

    A token belongs to it that shares a character with it, as " dog" does with "dog". So does a token without
    a character of its own that lies within or right before it: of several tokens that make one character (the
    bytes of an emoji or of "猫"), all but one may have none.

    Args:
        mention: in the answer's text.
        spans: of the answer's T tokens, as :class:`~atss_ext.vlsam.protocols.Answer` has them.

    Returns:
        indices of tokens, at least one.

    Raises:
        VlsamError: the mention lies outside of the tokens.
    """
    begin = bisect_left(spans, True, key=lambda span: span[1] > mention.start or span[0] >= mention.start)
    first = bisect_left(spans, True, key=lambda span: span[1] > mention.start)  # with a character of it
    end = bisect_left(spans, mention.end, key=lambda span: span[0])
    if not 0 <= mention.start < mention.end or first >= end:
        covered = f'characters {spans[0][0]} to {spans[-1][1]}' if spans else 'no characters'
        raise VlsamError(
            f'{mention.name!r} stands at characters {mention.start} to {mention.end}, but the {len(spans)} '
            f'tokens of the answer cover {covered}: find names in the text of the same answer.'
        )
    return range(begin, end)


def row_weights(
    mentions: Sequence[Mention],
    spans: Sequence[tuple[int, int]],
    start: int,
    length: int,
    rule: str = DEFAULT_ROW_RULE,
    device: torch.device | str | None = None,
) -> Tensor:
    """Which rows of the attention speak for a name, as weights of a mean.

    The paper takes the attention of the object's token and leaves open which position that is: token t has
    one of its own, start + t, and was generated at start + t - 1, where the model chose the name. Rules:

    - 'generating': the mean over the positions that generated its tokens. The default: with the small
      trained LLaVA of the package (``docs/row_rules.md``) it is far ahead of the name's own positions under
      every flow, and it does not hang on a single position.
    - 'generating-first': the position that generated its first token, where the model chose the name. Ahead
      of 'generating' in that model (77.1% to 73.3% of the maps peak on the object, with plain flow), level
      with it or behind in another training of the same model.
    - 'tokens': the mean over the tokens' own positions.
    - 'first', 'last': the own position of its first or last token.
    - 'mean': the mean over all generating and own positions.

    Args:
        mentions: O names in the answer.
        spans: of its T tokens.
        start: place of the answer's first token in the sequence, as a
            :class:`~atss_ext.vlsam.protocols.Reading` has it.
        length: N, tokens in the sequence.
        rule: one of :data:`ROW_RULES`.
        device: of the result.

    Returns:
        float32 [O, N]; rows sum to one.

    Raises:
        ValueError: an unknown rule.
        VlsamError: a mention outside of the tokens, or an answer that does not fit into the sequence.
    """
    if rule not in ROW_RULES:
        raise ValueError(f'rule must be one of {ROW_RULES}, got {rule!r}.')
    if not 1 <= start <= length - len(spans):
        raise VlsamError(
            f'An answer of {len(spans)} tokens from position {start} on does not fit into a sequence of '
            f'{length}: it lies within the sequence, behind the prompt.'
        )
    weights = torch.zeros(len(mentions), length)
    for row, mention in zip(weights, mentions, strict=True):
        positions = torch.tensor(_positions(token_range(mention, spans), start, rule))
        row.index_add_(0, positions, torch.full((len(positions),), 1 / len(positions)))
    return weights.to(device)


def _positions(tokens: range, start: int, rule: str) -> list[int]:
    own = [start + token for token in tokens]
    generating = [position - 1 for position in own]
    return {
        'generating-first': generating[:1],
        'generating': generating,
        'tokens': own,
        'first': own[:1],
        'last': own[-1:],
        'mean': generating + own,
    }[rule]
