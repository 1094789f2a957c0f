"""The sampler draws from the distribution it says, and from its own seed alone."""

import numpy as np
import pytest
import torch

from atss_ext.vlsam.vlm.sampling import SeededSampler, nucleus

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


@pytest.mark.parametrize(('temperature', 'top_p'), [(1.0, 1.0), (0.8, 0.9), (2.0, 0.6), (0.8, 0.1)])
def test_frequencies_are_those_of_the_warped_softmax(temperature, top_p):
    """20,000 seeds: each token within four standard deviations of transformers' own warpers."""
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    count = 20000
    scores = LOGITS.expand(count, -1)
    drawn = SeededSampler(range(count), temperature, top_p)(torch.zeros(count, 1), scores).argmax(1)
    warped = TopPLogitsWarper(top_p)(None, TemperatureLogitsWarper(temperature)(None, LOGITS[None]))
    expected = warped[0].softmax(0) * count
    found = drawn.bincount(minlength=len(LOGITS))
    assert ((found - expected).abs() <= 4 * expected.sqrt() + 1e-6).all()


def test_nucleus_keeps_what_transformers_keeps():
    from transformers import TopPLogitsWarper

    scores = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)) * 3
    for top_p in (0.1, 0.5, 0.95):
        kept = nucleus(scores, top_p).isfinite()
        assert torch.equal(kept, TopPLogitsWarper(top_p)(None, scores).isfinite())
        assert kept.any(1).all()
    assert nucleus(scores, 1.0) is scores


def test_literal_nucleus():
    """Probabilities 0.5, 0.3, 0.2: 0.5 is reached by the first alone, 0.51 takes two."""
    scores = torch.tensor([[0.2, 0.5, 0.3]]).log()
    assert nucleus(scores, 0.49).isfinite().tolist() == [[False, True, False]]
    assert nucleus(scores, 0.51).isfinite().tolist() == [[False, True, True]]
    assert nucleus(scores, 0.81).isfinite().tolist() == [[True, True, True]]


def test_rows_do_not_see_each_other():
    """Ten steps of a batch: each row is what its seed gives alone, in any place."""
    seeds = [3, 3, np.int64(11), -4, 2**70]
    logits = torch.randn(10, 1, 40, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(1, 1)

    def run(chosen):
        sampler = SeededSampler(chosen, 1.0, 0.9)
        return torch.stack([sampler(ids, step.expand(len(chosen), -1)) for step in logits], 1)

    together = run(seeds)
    for row, seed in zip(together, seeds, strict=True):
        assert torch.equal(row, run([seed])[0])
    assert torch.equal(together[0], together[1])
    assert not torch.equal(together[0].argmax(1), together[2].argmax(1))


def test_rounding_of_equal_scores_does_not_change_the_draw():
    """Noise belongs to the token: a draw by rank would follow the order that rounding happens to give."""
    scores = torch.zeros(1, 1000)
    noisy = scores + torch.randn(1, 1000, generator=torch.Generator().manual_seed(2)) * 1e-6
    for seed in range(50):
        exact = SeededSampler([seed], 1.0, 1.0)(scores, scores).argmax()
        assert SeededSampler([seed], 1.0, 1.0)(scores, noisy).argmax() == exact


def test_banned_tokens_and_greedy():
    scores = LOGITS[None].half()
    sampler = SeededSampler([0], 0, 0.5, banned=[0, 2])
    assert sampler(scores, scores).argmax() == 1
    assert scores[0, 0] == 2.0  # the caller's scores are left alone
    drawn = {int(SeededSampler([s], 5.0, 1.0, banned=[0, 2])(scores, scores).argmax()) for s in range(300)}
    assert drawn == {1, 3, 4, 5}
