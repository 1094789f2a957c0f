"""How sure VL-SAM is of an object: a documented product, never a constant."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atss_ext.vlsam.names import Mention, token_range


@dataclass(frozen=True)
class ScoreOptions:
    """What the confidence is made of; the paper gives its detections none.

    Args:
        iou: the segmenter's predicted IoU: does the mask fit its points?
        contrast: the attention's contrast: does the map stand out where the points lie?
        name: the probability of the name's tokens (their geometric mean): did the model mean that word?

    Raises:
        ValueError: all are off, which would leave every object the same score.
    """

    iou: bool = True
    contrast: bool = True
    name: bool = True

    def __post_init__(self) -> None:
        """Refuse a constant."""
        if not (self.iou or self.contrast or self.name):
            raise ValueError('iou, contrast and name are all False: a score needs at least one of them.')


def confidence(
    ious: Tensor, contrast: Tensor, name_log_probs: Tensor, options: ScoreOptions | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Score O objects: predicted IoU x attention contrast x name probability, those that are switched on.

    Each factor lies in 0..1 and the score does not fall when one of them grows. A predicted IoU beyond 1, as
    SAM gives at times, counts as 1, what is not a number as 0.

    Args:
        ious: [O], the segmenter's predicted IoU.
        contrast: [O], as :class:`~atss_ext.vlsam.prompts.PointPrompts` has it.
        name_log_probs: [O], as of :func:`name_log_probs`.
        options: default :class:`ScoreOptions`.

    Returns:
        float32 [O] in 0..1, and its factors by name ('iou', 'contrast', 'name'), float32 [O] each.
    """
    options = options or ScoreOptions()
    factors = {'iou': ious, 'contrast': contrast, 'name': name_log_probs.exp()}
    parts = {
        name: values.float().nan_to_num(0).clamp(0, 1)
        for name, values in factors.items()
        if getattr(options, name)
    }
    return torch.stack(list(parts.values())).prod(0), parts


def name_log_probs(
    mentions: Sequence[Mention], spans: Sequence[tuple[int, int]], log_probs: Tensor
) -> Tensor:
    """Mean log-probability of each name's tokens.

    Args:
        mentions: O names in an answer.
        spans: of its T tokens.
        log_probs: [T], as :class:`~atss_ext.vlsam.protocols.Reading` has them.

    Returns:
        float32 [O], on the device of ``log_probs``.

    Raises:
        ValueError: not one log-probability a token.
        VlsamError: a mention outside of the tokens.
    """
    if len(spans) != len(log_probs):
        raise ValueError(f'{len(log_probs)} log-probabilities for {len(spans)} tokens.')
    means = log_probs.new_zeros(len(mentions), dtype=torch.float32)
    for index, mention in enumerate(mentions):
        tokens = token_range(mention, spans)
        means[index] = log_probs[tokens.start : tokens.stop].float().mean()
    return means
