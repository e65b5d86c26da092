"""StepSearch: where its rewards lie among the tokens, and what a critic that says 0 makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from calibadv.methods.method import Method
from calibadv.methods.stepsearch import stepsearch
from calibadv.rewards.gold_match import GoldNeed
from calibadv.rewards.turns import with_turn_rewards
from calibadv.types import Document, Group
from tests.build import group, trajectory

REWARDED = with_turn_rewards(
    group(trajectory(1.0, [2, 1, 3]), trajectory(0.0, [2])),
    [[0.5, -1.0, 1.2], [-1.0]],
)


def token_rewards(method: Method, rolled: Group = REWARDED) -> list[np.ndarray]:
    assert method.critic is not None
    return method.critic.rewards(rolled)


def test_scaled_step_rewards_and_the_plain_final_one_lie_on_each_turns_last_token() -> None:
    first, second = token_rewards(stepsearch())
    np.testing.assert_allclose(first, [0, 0.3, -0.6, 0, 0, 1.2], rtol=1e-6)
    np.testing.assert_allclose(second, [0, -1], rtol=1e-6)


def test_the_released_codes_step_scale_is_a_parameter() -> None:
    np.testing.assert_allclose(token_rewards(stepsearch(step_scale=1.6))[0], [0, 0.8, -1.6, 0, 0, 1.2], rtol=1e-6)


def test_advantages_are_the_rewards_to_go() -> None:
    first, second = stepsearch().advantages(REWARDED)
    np.testing.assert_allclose(first, [0.9, 0.9, 0.6, 1.2, 1.2, 1.2], rtol=1e-6)
    np.testing.assert_allclose(second, [-1, -1], rtol=1e-6)


def test_gamma_discounts_by_action_tokens() -> None:
    first, _ = stepsearch(gamma=0.5).advantages(REWARDED)
    np.testing.assert_allclose(first, [0.0375, 0.075, -0.45, 0.3, 0.6, 1.2], rtol=1e-5)


async def test_the_scorer_rewards_turns_with_the_key_weight() -> None:
    method = stepsearch(key_weight=0.5)
    assert method.score_turns is not None
    scores = await method.score_turns()(group(trajectory(0.8, [2, 1], [["d"]])), {"d": Document("d", "", "text")})
    assert scores.rewards == [[0.0, 0.8]]  # the question has no gold parts
    assert method.gold == GoldNeed("texts", 0.5)


def test_the_critics_settings_are_passed_on() -> None:
    critic = stepsearch(lam=0.9, critic="head", critic_lr=5e-7, kl_reward=0.001).critic
    assert critic is not None
    assert (critic.gamma, critic.lam, critic.kind, critic.lr, critic.kl_reward) == (1.0, 0.9, "head", 5e-7, 0.001)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"step_scale": -1.0}, "step_scale is -1.0, expected 0 or more"),
        ({"key_weight": -0.1}, "key_weight is -0.1, expected 0 or more"),
        ({"gamma": 1.1}, "gamma is 1.1"),
        ({"min_gold": 1.5}, "min_gold is 1.5"),
    ],
)
def test_what_cannot_be_trained_with_is_refused(params: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stepsearch(**params)
