"""Learning rates by hand: two updates a step, ten steps."""

from __future__ import annotations

import math

import pytest

from calibadv.config import Config, load_config
from calibadv.rllib.lr_schedule import critic_rate, policy_rate
from tests.build import configured


def settings(**learner: object) -> Config:
    keys = {"data.questions_per_step": 2, "rollout.samples": 2, "run.steps": 10, "method.name": "ppo"}
    keys |= {f"learner.{key}": value for key, value in {"minibatch_rollouts": 2, "lr": 1.0, **learner}.items()}
    return load_config(None, keys)


def rates(config: Config) -> list[float]:
    return [policy_rate(config, update) for update in range(config.run.steps * config.updates_per_step)]


def test_without_warm_up_it_is_the_cosine_from_the_first_update_on() -> None:
    by_hand = [0.1 + 0.9 * (1 + math.cos(math.pi * update / 20)) / 2 for update in range(20)]
    assert rates(settings(lr_final=0.1)) == pytest.approx(by_hand)


def test_the_warm_up_rises_in_equal_steps_and_the_cosine_has_what_is_left() -> None:
    found = rates(settings(warmup_steps=2))
    assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert found[4:] == pytest.approx([(1 + math.cos(math.pi * update / 16)) / 2 for update in range(16)])


def test_a_constant_rate_with_warm_up_is_search_r1s() -> None:
    assert rates(settings(warmup_steps=1, lr_final=1.0)) == [0.5, *[1.0] * 19]


def test_the_policy_rests_while_the_critic_learns_alone() -> None:
    found = rates(settings(critic_only_steps=3, warmup_steps=1))
    assert found[:9] == pytest.approx([0] * 6 + [0.5, 1.0, 1.0])
    assert found[8:] == pytest.approx([(1 + math.cos(math.pi * update / 12)) / 2 for update in range(12)])


def test_the_critics_rate_rises_and_stays() -> None:
    config = settings(critic_warmup_steps=2, critic_only_steps=3)
    assert [critic_rate(config, 8.0, update) for update in range(6)] == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    assert critic_rate(settings(), 8.0, 0) == 8.0


def test_passes_are_more_updates() -> None:
    config = settings(passes=3, warmup_steps=1)
    assert config.updates_per_step == 6
    assert rates(config)[:7] == pytest.approx([(i + 1) / 6 for i in range(6)] + [1.0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"warmup_steps": 10}, "leave none of run.steps = 10"),
        ({"warmup_steps": 6, "critic_only_steps": 4}, "leave none of run.steps = 10"),
        ({"critic_warmup_steps": 12}, "learner.critic_warmup_steps = 12 leaves none"),
        ({"critic_only_steps": 10}, "learner.critic_only_steps = 10 leaves none"),
    ],
)
def test_a_rate_that_never_gets_there_is_refused(overrides: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**overrides)


@pytest.mark.parametrize("name", ["critic_warmup_steps", "critic_only_steps"])
def test_without_a_critic_there_is_none_to_warm_up(name: str) -> None:
    with pytest.raises(ValueError, match=f"learner.{name} = 2 is of a critic, and method 'grpo' has none"):
        configured(f"--learner.{name}=2", "--method.name=grpo")
