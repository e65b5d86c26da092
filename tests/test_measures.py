"""Single numbers of tokens, advantages and queries, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibadv.measures import (
    high_ppl_ratio,
    neg_pos_ratio,
    penalised_share,
    perplexity,
    repetition,
    score_distribution,
    token_probability,
)
from tests.build import row

LOG_HALF = math.log(0.5)


def test_neg_pos_ratio_divides_the_two_masses() -> None:
    assert neg_pos_ratio([row(1, -3), row(0.5, 0)]) == pytest.approx(2.0)


def test_neg_pos_ratio_without_a_negative_is_zero_and_without_a_positive_undefined() -> None:
    assert neg_pos_ratio([row(1, 2)]) == 0.0
    assert neg_pos_ratio([row(-1, 0)]) is None
    assert neg_pos_ratio([]) is None


def test_perplexity_of_a_fair_coin_is_two() -> None:
    assert perplexity(row(LOG_HALF, LOG_HALF)) == pytest.approx(2.0)
    assert perplexity(row()) is None


def test_perplexity_of_an_impossible_token_stays_finite() -> None:
    ppl = perplexity(row(-1e30))
    assert ppl is not None
    assert math.isfinite(ppl)


def test_high_ppl_ratio_counts_only_above_the_threshold() -> None:
    assert high_ppl_ratio([2.0, 50.0, 51.0, None, 900.0]) == pytest.approx(0.5)
    assert high_ppl_ratio([]) is None


def test_token_probability_is_the_mean_of_probabilities_not_of_logs() -> None:
    assert token_probability(row(0.0, math.log(0.5))) == pytest.approx(0.75)
    assert token_probability(row()) is None


def test_the_penalised_share_looks_at_negative_advantages_alone() -> None:
    assert penalised_share([(-1, False), (-1, True), (-1, True), (1, True), (0, True)]) == pytest.approx(2 / 3)
    assert penalised_share([(1, True)]) is None


def test_score_distribution_uses_the_nearest_bin() -> None:
    assert score_distribution([0, 1 / 3, 0.34, 2 / 3, 1]) == pytest.approx((0.2, 0.4, 0.2, 0.2))
    assert score_distribution([]) is None


def test_repetition_is_zero_without_repeats_and_near_one_in_a_loop() -> None:
    assert repetition(np.arange(10)) == 0.0
    assert repetition(np.full(103, 7)) == pytest.approx(0.99)
    to, be, or_, not_ = range(4)
    assert repetition(np.asarray([to, be, or_, not_, to, be, or_, not_, to, be])) == pytest.approx(1 - 4 / 7)
    assert repetition(np.asarray([1, 2, 3])) == 0.0
