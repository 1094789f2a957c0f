"""The confidence: literal products, and that no factor is lost."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_ext.vlsam.names import Mention
from atss_ext.vlsam.protocols import VlsamError
from atss_ext.vlsam.scores import ScoreOptions, confidence, name_log_probs

IOUS = torch.tensor([0.9, 0.5, 1.0])
CONTRAST = torch.tensor([0.5, 0.25, 1.0])
LOG_PROBS = torch.tensor([0.8, 0.5, 1.0]).log()
FACTORS = {'iou': [0.9, 0.5, 1.0], 'contrast': [0.5, 0.25, 1.0], 'name': [0.8, 0.5, 1.0]}


@pytest.mark.parametrize(
    'off', [(), ('iou',), ('contrast',), ('name',), ('iou', 'name'), ('contrast', 'iou')]
)
def test_the_product_of_what_is_switched_on(off):
    score, parts = confidence(IOUS, CONTRAST, LOG_PROBS, ScoreOptions(**dict.fromkeys(off, False)))
    on = [name for name in FACTORS if name not in off]
    assert list(parts) == on
    for name in on:
        assert parts[name].tolist() == pytest.approx(FACTORS[name])
    assert score.tolist() == pytest.approx([math.prod(FACTORS[name][i] for name in on) for i in range(3)])


def test_default_is_all_three():
    assert confidence(IOUS, CONTRAST, LOG_PROBS)[0].tolist() == pytest.approx([0.36, 0.0625, 1])


def test_a_constant_score_is_refused():
    with pytest.raises(ValueError, match='at least one'):
        ScoreOptions(iou=False, contrast=False, name=False)


def test_out_of_range_and_no_numbers():
    ious = torch.tensor([1.04, -0.1, math.nan, 0.5, 0.5])
    contrast = torch.tensor([0.5, 0.5, 0.5, math.nan, 0.5])
    log_probs = torch.tensor([0.0, 0.0, 0.0, 0.0, -math.inf])
    score, parts = confidence(ious, contrast, log_probs)
    assert score.tolist() == [0.5, 0, 0, 0, 0]
    assert parts['iou'].tolist() == [1, 0, 0, 0.5, 0.5]


def test_half_precision_is_scored_in_single():
    score, _ = confidence(IOUS.half(), CONTRAST.half(), LOG_PROBS.half())
    assert score.dtype == torch.float32
    assert score.tolist() == pytest.approx([0.36, 0.0625, 1], abs=1e-3)


def test_no_objects():
    score, parts = confidence(torch.zeros(0), torch.zeros(0), torch.zeros(0))
    assert score.shape == parts['name'].shape == (0,)


unit = st.floats(0, 1, width=32)


@settings(max_examples=200, deadline=None)
@given(unit, unit, st.floats(-30, 0, width=32), st.floats(0, 0.5, width=32))
def test_monotone_and_within_bounds(iou, contrast, log_prob, step):
    base = torch.tensor([iou, contrast, log_prob])
    low = float(confidence(*base[:, None])[0])
    assert 0 <= low <= 1
    for index in range(3):
        more = base.clone()
        more[index] += step
        assert float(confidence(*more[:, None])[0]) >= low


def test_every_factor_tells_objects_apart():
    for index in range(3):
        values = torch.tensor([[0.5, 0.5], [0.5, 0.5], [-0.5, -0.5]])
        values[index, 1] -= 0.25
        score, _ = confidence(*values)
        assert float(score[0]) > float(score[1]) > 0


SPANS = [(0, 1), (1, 5), (5, 9), (9, 10), (10, 14)]  # "a hot dogs, cat" in tokens of sorts
TOKENS = torch.tensor([-9.0, -0.5, -1.5, -9.0, -0.25])


def test_name_log_probs_are_means_over_the_names_tokens():
    mentions = [Mention('hot dog', 2, 9), Mention('cat', 11, 14)]
    means = name_log_probs(mentions, SPANS, TOKENS)
    assert means.tolist() == [-1.0, -0.25]
    assert means.dtype == torch.float32
    assert name_log_probs([], SPANS, TOKENS).shape == (0,)
    # A name of many tokens scores no less for being long: the geometric mean.
    assert confidence(torch.ones(2), torch.ones(2), means)[0].tolist() == pytest.approx(
        [math.sqrt(math.exp(-0.5) * math.exp(-1.5)), math.exp(-0.25)]
    )


def test_order_of_names_does_not_matter():
    mentions = [Mention('a', 0, 1), Mention('hot dog', 2, 9), Mention('cat', 11, 14)]
    expected = dict(zip(mentions, name_log_probs(mentions, SPANS, TOKENS).tolist(), strict=True))
    for order in itertools.permutations(mentions):
        assert name_log_probs(order, SPANS, TOKENS).tolist() == [expected[mention] for mention in order]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='4 log-probabilities for 5 tokens'):
        name_log_probs([], SPANS, TOKENS[:4])
    with pytest.raises(VlsamError, match='20 to 23'):
        name_log_probs([Mention('dog', 20, 23)], SPANS, TOKENS)
