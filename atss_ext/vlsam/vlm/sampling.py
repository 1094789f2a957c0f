"""Sampling that depends on a sample's own seed, whatever else is in its batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


class SeededSampler:
    """Turns greedy decoding into sampling: a logits processor of ``generate(do_sample=False)``.

    Temperature and nucleus (top-p) as usual; then each sample's own generator adds Gumbel noise, so that
    the largest score is a draw from the softmax (the Gumbel-max trick). The noise belongs to the token, not
    to its rank: scores that swap places by rounding, as another batch makes them, do not change the draw.
    It is drawn on the CPU, so that a GPU sees the same.

    Args:
        seeds: one a sample of the batch.
        temperature: 0 is greedy decoding.
        top_p: in (0, 1]: the smallest set of likeliest tokens whose probabilities reach it is drawn from.
        banned: tokens that are never generated (placeholders of images, which would be taken for one).
    """

    def __init__(
        self, seeds: Sequence[int], temperature: float, top_p: float, banned: Sequence[int] = ()
    ) -> None:
        self.generators = [torch.Generator().manual_seed(int(seed) % 2**63) for seed in seeds]
        self.temperature = temperature
        self.top_p = top_p
        self.banned = list(banned)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores float32 [B, V] whose arg max is the next token.

        Args:
            input_ids: int64 [B, N], not looked at.
            scores: [B, V], logits.
        """
        scores = scores.float()
        if self.banned:
            scores = scores.index_fill(1, torch.tensor(self.banned, device=scores.device), -torch.inf)
        if self.temperature == 0:
            return scores
        scores = nucleus(scores / self.temperature, self.top_p)
        return scores + self._gumbel(scores.size(1)).to(scores.device)

    def _gumbel(self, count: int) -> Tensor:
        """One draw [B, count] of Gumbel noise, each row from its sample's generator."""
        draws = torch.empty(len(self.generators), count)
        for row, generator in zip(draws, self.generators, strict=True):
            row.exponential_(generator=generator)
        # A draw of zero would be infinite noise, and -inf + inf no number.
        return -draws.clamp_(min=torch.finfo(draws.dtype).tiny).log_()


def nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Scores [B, V] with -inf outside of the nucleus; the likeliest token is always in it."""
    if top_p >= 1:
        return scores
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    probabilities = ordered.softmax(1)
    before = probabilities.cumsum(1) - probabilities
    outside = before >= top_p
    outside[:, 0] = False
    return scores.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), -torch.inf)
