"""GAE by hand, and its whitening over a step that lies on several learners."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.advantages.gae import gae, moments, reward_to_go, whiten
from tests.build import row


def test_reward_to_go_by_hand() -> None:
    assert reward_to_go(row(1, 0, 2)).tolist() == [3, 2, 2]
    assert reward_to_go(row(1, 0, 2), 0.5).tolist() == [1.5, 1, 2]
    assert reward_to_go(row()).tolist() == []


def test_gae_by_hand() -> None:
    # δ = [0 + .5*2 - 1, 1 + 0 - 2] = [0, -1] with γ = .5; A_1 = -1, A_0 = 0 + .5 * .5 * -1.
    assert gae(row(0, 1), row(1, 2), gamma=0.5, lam=0.5).tolist() == [-0.25, -1]


def test_lambda_one_is_reward_to_go_minus_the_value() -> None:
    rewards, values = row(0.5, -1, 2, 0), row(3, 1, -2, 0.25)
    expected = reward_to_go(rewards, 0.9) - values
    np.testing.assert_allclose(gae(rewards, values, gamma=0.9, lam=1.0), expected, rtol=1e-6)


def test_lambda_zero_is_the_one_step_error() -> None:
    assert gae(row(1, 1), row(3, 5), gamma=1.0, lam=0.0).tolist() == [1 + 5 - 3, 1 - 5]


def test_whitening_by_hand() -> None:
    # 1, 2, 3, 6: mean 3, unbiased variance 14/3.
    rows = [row(1, 2), row(3, 6)]
    whitened = [whiten(r, *moments(rows)) for r in rows]
    np.testing.assert_allclose(np.concatenate(whitened), (np.array([1, 2, 3, 6]) - 3) / np.sqrt(14 / 3), rtol=1e-5)


def test_equal_advantages_whiten_to_zero_and_a_single_token_stays() -> None:
    assert whiten(row(2, 2), *moments([row(2, 2)])).tolist() == [0, 0]
    assert whiten(row(2), *moments([row(2)])).tolist() == [2]


@given(st.lists(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8), min_size=2, max_size=4))
def test_whitening_does_not_depend_on_how_rows_are_dealt_to_ranks(rows: list[list[float]]) -> None:
    arrays = [row(*values) for values in rows]
    parts = np.sum([moments([a]) for a in arrays], axis=0)
    assert parts.tolist() == pytest.approx(list(moments(arrays)), rel=1e-9, abs=1e-9)
