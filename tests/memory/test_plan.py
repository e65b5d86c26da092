"""What a configuration comes to, in numbers: rollouts, updates, tokens and bytes; and that its page shows them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from calibadv.config import Config, load_config
from calibadv.memory.plan import ModelSizes, plan_of
from calibadv.views.dry_run import plan_page
from tests.build import configured, overrides_of

POCKET = Path(__file__).parents[2] / "workflows" / "recipes" / "pocket.toml"
QWEN = "--model.path=Qwen/Qwen2.5-7B"


def sizes(*overrides: str) -> ModelSizes:
    found = plan_of(configured(QWEN, *overrides)).model
    assert found is not None
    return found


def page(config: Config) -> str:
    out = io.StringIO()
    Console(file=out, width=140, color_system=None).print(plan_page(config, plan_of(config)))
    return " ".join(out.getvalue().split())


def test_counts_of_a_pocket_run_by_hand() -> None:
    config = load_config(
        POCKET,
        overrides_of(
            *("--run.steps=30", "--data.questions_per_step=32", "--rollout.samples=5", "--rollout.engines=2"),
            *("--rollout.max_turns=4", "--rollout.max_turn_tokens=48", "--rollout.max_tokens=1024"),
            *("--learner.minibatch_rollouts=40", "--learner.lr=3e-4", "--learner.lr_final=3e-5"),
            *("--learner.token_budget=8192", "--model.path=pocket", "--model.dtype=float32"),
        ),
    )
    plan = plan_of(config)
    assert (plan.step_rollouts, plan.run_rollouts, plan.step_updates, plan.run_updates) == (160, 4800, 4, 120)
    assert plan.step_sampled_tokens == 160 * 5 * 48
    assert (plan.step_tokens, plan.step_searches) == (160 * 1024, 160 * 4)
    assert (plan.rest_updates, plan.warmup_updates, plan.cosine_updates) == (0, 0, 120)
    assert (plan.gpus, plan.parts, plan.unknown) == (0, (), "")
    assert plan.model is not None
    assert plan.model.kv_cache_bytes == 1024 * 2 * 4 * 192 * 4  # keys and values of 4 layers, fp32
    assert plan.model.state_bytes == 16 * plan.model.parameters
    said = page(config)
    assert "32 questions x 5 = 160" in said
    assert "0.0003 to 3e-05, cosine over 120 updates" in said
    assert "2 engines, 1 learners, 1 retrievers" in said


def test_a_turns_budget_counts_only_up_to_the_whole_rollouts() -> None:
    assert plan_of(Config()).step_sampled_tokens == 2560 * 5 * 1024  # 5 turns x 1,024 < 16,384
    assert plan_of(load_config(None, {"rollout.max_tokens": 3000})).step_sampled_tokens == 2560 * 3000


def test_a_rate_rests_and_rises_before_it_falls() -> None:
    given = ("--method.name=ppo", "--learner.critic_only_steps=2", "--learner.warmup_steps=3", "--run.steps=20")
    plan = plan_of(configured(*given))
    assert (plan.rest_updates, plan.warmup_updates, plan.cosine_updates) == (20, 30, 150)  # 10 updates a step


def test_sizes_of_a_qwen_7b_by_hand() -> None:
    qwen = sizes()
    assert (qwen.parameters, qwen.trained_parameters) == (7_615_616_512, 7_615_616_512)
    assert qwen.weights_bytes == 2 * 7_615_616_512
    assert qwen.kv_cache_bytes == 16_384 * 57_344  # a token's: 2 x 28 x 4 x 128 x 2
    assert qwen.state_bytes == qwen.held_bytes == 16 * 7_615_616_512
    assert qwen.activations_bytes == 16_384 * (28.5 * (32 * 3584 + 8 * 512 + 16 * 18_944) + 16 * 3584)
    assert qwen.head_bytes == 12 * 110 * 152_064 + 4 * 152_064 * 3584  # a CPU's chunk and temporaries; the gradient
    assert (
        sizes("--learner.gpus_per_learner=1", "--learner.learners=1").head_bytes - qwen.head_bytes
        == 12 * (1024 - 110) * 152_064
    )
    assert qwen.saved_bytes == (12 + 2) * 7_615_616_512
    assert "99.3 GiB, 3 are kept; every 10 steps training waits 106.6 s" in page(configured(QWEN))
    assert qwen.learner_bytes == qwen.held_bytes + qwen.activations_bytes + qwen.head_bytes


def test_what_each_of_several_learners_holds_of_a_shared_state() -> None:
    shared = sizes("--learner.zero=2", "--learner.learners=4")
    assert shared.state_bytes == 16 * 7_615_616_512
    assert shared.held_bytes == 8 * 7_615_616_512  # 4 bytes a parameter, and a quarter of 16 more


def test_adapters_have_gradients_and_moments_and_the_frozen_weights_none() -> None:
    adapters = sizes("--learner.lora_rank=16")
    assert adapters.trained_parameters == 40_370_176
    assert adapters.state_bytes == 4 * 7_615_616_512 + 16 * 40_370_176


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("--method.name=ppo", "--method.params.kl_reward=0.001"),
        ("--method.name=ppo", "--method.params.critic=head"),
        ("--learner.lora_rank=16", "--learner.kl_coef=0.1"),
        ("--learner.zero=2", "--learner.learners=4", "--learner.weights=bfloat16", "--learner.kl_coef=0.1"),
        ("--learner.token_budget=20000", "--rollout.max_tokens=30000"),
    ],
)
def test_what_a_learner_holds_is_the_same_in_both_tables_of_a_dry_run(given: tuple[str, ...]) -> None:
    more = ("--learner.dtype=bfloat16", "--learner.learners=1", "--learner.gpus_per_learner=1")
    plan = plan_of(configured(QWEN, *more, *given))
    (learner,) = (part for part in plan.parts if part.name == "learner")
    items = {item.name.partition(",")[0].partition(" of ")[0]: item.size_bytes for item in learner.items}
    state = ("frozen weights", "weights", "adapters", "weights as AdamW steps them", "gradients", "AdamW's two moments")
    assert plan.model is not None
    assert plan.model.held_bytes == sum(items.get(name, 0) for name in state)
    assert plan.model.reference_bytes == items.get("reference model", 0)
    assert plan.model.activations_bytes == items["activations"]


def test_a_checkpoint_is_weights_and_moments_of_what_trains() -> None:
    assert sizes().checkpoint_bytes == 12 * 7_615_616_512
    assert sizes("--learner.lora_rank=16").checkpoint_bytes == 12 * 40_370_176
    critic = sizes("--method.name=ppo")
    assert critic.checkpoint_bytes == 12 * (2 * 7_615_616_512 - 152_064 * 3584)  # a second trunk without a head
    assert critic.state_bytes == 16 / 12 * critic.checkpoint_bytes


def test_sizes_of_a_model_of_unknown_shape_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = load_config(None, {"model.path": "someone/model"})
    plan = plan_of(config)
    assert (plan.model, plan.parts, plan.step_rollouts) == (None, (), 2560)
    assert plan.unknown.startswith("someone/model is not a folder on this machine, not in its hub cache")
    assert "not known: someone/model is not a folder" in page(config)


def test_gpus_are_counted_and_a_run_on_cpus_has_none() -> None:
    assert plan_of(Config()).gpus == 8  # 8 engines; learner and search on CPUs
    assert "8 of one node of 8" in page(Config())
    assert plan_of(load_config(POCKET)).gpus == 0
    assert "Memory of each GPU" not in page(load_config(POCKET))
