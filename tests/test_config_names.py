"""What other trainers call our settings: each name is answered with a key of ours that exists."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from calibadv.config import Config
from calibadv.config.names import OURS, right_name
from calibadv.methods import METHODS
from tests.test_config import refused

KEYS = [f"{name}.{key}" for name, part in Config.model_fields.items() for key in part.annotation.model_fields]
PARAMETERS = {f"method.params.{name}" for method in METHODS.values() for name in inspect.signature(method).parameters}


def test_every_key_that_is_answered_exists() -> None:
    assert set(OURS) - set(KEYS) - PARAMETERS == set()


def test_no_name_means_two_keys_and_none_is_a_key_of_ours() -> None:
    names = [name for theirs in OURS.values() for name in theirs]
    assert len(names) == len(set(names)) > 150
    # Two words that others have for training are of the search here; who writes them elsewhere means training.
    assert set(names) & {key.rpartition(".")[2] for key in KEYS if key.startswith("search.")} == {
        "batch_size",
        "max_tokens",
    }
    assert set(names) & {key.rpartition(".")[2] for key in KEYS if not key.startswith("search.")} == {"max_tokens"}


@pytest.mark.parametrize("key", OURS)
def test_a_name_is_answered_bare_in_a_wrong_section_and_with_dashes(key: str) -> None:
    for name in OURS[key]:
        assert right_name(name, KEYS) == key or "." in name
        assert right_name(f"learner.{name}", KEYS) == key
        assert right_name(f"trainer.{name.replace('_', '-')}", KEYS) == key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("learning_rate", "learner.lr"),
        ("num_generations", "rollout.samples"),
        ("beta", "learner.kl_coef"),
        ("epsilon", "learner.clip"),
        ("max_completion_length", "rollout.max_turn_tokens"),
        ("per_device_train_batch_size", "learner.minibatch_rollouts"),
        ("gradient_accumulation_steps", "learner.token_budget"),
        ("actor_rollout_ref.rollout.n", "rollout.samples"),
        ("actor_rollout_ref.rollout.name", "rollout.engine"),
        ("actor_rollout_ref.rollout.tensor_model_parallel_size", "rollout.tensor_parallel"),
        ("actor_rollout_ref.rollout.gpu_memory_utilization", "rollout.gpu_memory_utilization"),
        ("actor_rollout_ref.actor.optim.lr", "learner.lr"),
        ("critic.optim.lr", "method.params.critic_lr"),
        ("actor_rollout_ref.actor.kl_loss_coef", "learner.kl_coef"),
        ("algorithm.kl_ctrl.kl_coef", "learner.kl_coef"),
        ("+data.train_batch_size", "data.questions_per_step"),
        ("trainer.test_freq", "evaluation.every"),
        ("n_samples_per_prompt", "rollout.samples"),
        ("learner.learning_rates", "learner.lr"),
        ("rollout.smaples", "rollout.samples"),
    ],
)
def test_names_of_other_trainers_are_known(name: str, key: str) -> None:
    assert right_name(name, KEYS) == key


def test_what_is_like_nothing_gets_no_suggestion() -> None:
    assert right_name("qqqq.zzzz", KEYS) is None


def test_the_refusal_says_the_key_and_what_it_counts() -> None:
    said = refused("--learner.gradient-accumulation-steps", "8")
    assert said == (
        "unknown key 'learner.gradient_accumulation_steps' (did you mean 'learner.token_budget', tokens of a "
        "micro-batch, padding included, whose number follows from it?)"
    )
    assert "--learning_rate names no section (did you mean 'learner.lr'?)" in refused("--learning_rate", "1e-6")
    said = refused("actor_rollout_ref.rollout.n=5")
    assert "unexpected argument 'actor_rollout_ref.rollout.n=5' (did you mean 'rollout.samples'?)" in said


def test_a_recipe_of_another_trainer_is_answered_key_by_key(tmp_path: Path) -> None:
    recipe = tmp_path / "verl.toml"
    recipe.write_text("[actor_rollout_ref.rollout]\nn = 5\n[actor_rollout_ref.actor]\nclip_ratio = 0.2\n")
    assert refused(recipe=recipe).splitlines() == [
        "unknown key 'actor_rollout_ref.rollout.n' (did you mean 'rollout.samples'?)",
        "unknown key 'actor_rollout_ref.actor.clip_ratio' (did you mean 'learner.clip'?)",
    ]
