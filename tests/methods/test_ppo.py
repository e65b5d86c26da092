"""PPO: the reward stands on the last token, and a critic that says 0 spreads it over all."""

from __future__ import annotations

import pytest

from calibadv.methods import make_method
from calibadv.methods.ppo import outcome_rewards, ppo
from tests.build import group, trajectory

GROUP = group(trajectory(0.5, [2, 1]), trajectory(1.0, [1], format_reward=0.0))


def test_the_reward_stands_on_the_last_action_token() -> None:
    assert [r.tolist() for r in outcome_rewards(GROUP)] == [[0, 0, 0.5], [0]]


def test_without_a_critic_every_token_gets_what_is_to_come() -> None:
    assert [r.tolist() for r in ppo().advantages(GROUP)] == [[0.5, 0.5, 0.5], [0]]
    assert [r.tolist() for r in ppo(gamma=0.5).advantages(GROUP)] == [[0.125, 0.25, 0.5], [0]]


def test_equal_rewards_still_train_a_critic() -> None:
    critic = ppo(lam=0.9, critic="head", critic_lr=1e-5).critic
    assert critic is not None
    assert (critic.kind, critic.lam, critic.lr) == ("head", 0.9, 1e-5)


@pytest.mark.parametrize("bad", [{"gamma": 1.5}, {"lam": -0.1}, {"critic_lr": 0.0}, {"kl_reward": -1.0}])
def test_numbers_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        make_method("ppo", bad)
