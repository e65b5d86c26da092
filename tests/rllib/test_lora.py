"""Adapters: the base stays as it is, they alone train and are kept, and what leaves the learner is one plain model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from calibadv.config import ConfigError
from calibadv.rllib.learner import PolicyLearner
from calibadv.rllib.learner_state import load_learners
from calibadv.rllib.lora import Lora, add_adapters, merged, target_layers
from calibadv.rllib.policy import load_causal_lm
from calibadv.rllib.totals import step_metrics
from calibadv.types import Group
from tests.build import configured, group, trajectory
from tests.rllib.conftest import settings
from tests.rllib.test_learner import GROUPS, make_learner, on_policy, train
from tests.rllib.test_learner_state import Learners, saved

LORA = ("--learner.lora_rank=4", "--learner.lora_alpha=8", "--model.dtype=float32")
KL = ("--learner.kl_coef=0.1",)
IDS = torch.tensor([[5, 17, 200, 3, 42]])


def published(learner: PolicyLearner) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in learner.published_weights()}


def adapters(learner: PolicyLearner) -> dict[str, torch.Tensor]:
    named = learner.policy.language_model.named_parameters()
    return {name: weight.detach().clone() for name, weight in named if ".lora_" in name}


def base_weights(learner: PolicyLearner) -> list[torch.Tensor]:
    return [weight for name, weight in learner.policy.language_model.named_parameters() if ".lora_" not in name]


def original(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


# ---- the merged weight -------------------------------------------------------------------------------------------


def test_a_merged_weight_by_hand_and_its_parts_stay_as_they_are() -> None:
    weights = {
        "embed.weight": torch.ones(2, 2),
        "q_proj.base_layer.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "q_proj.base_layer.bias": torch.tensor([5.0, 6.0]),
        "q_proj.lora_A.default.weight": torch.tensor([[1.0, 10.0]]),
        "q_proj.lora_B.default.weight": torch.tensor([[2.0], [-1.0]]),
    }
    before = {name: weight.clone() for name, weight in weights.items()}
    result = dict(merged(weights, scale=0.5))
    assert list(result) == ["embed.weight", "q_proj.weight", "q_proj.bias"]
    assert result["q_proj.weight"].tolist() == [[2.0, 12.0], [2.5, -1.0]]  # W + (2, -1)ᵀ (1, 10) / 2
    assert result["q_proj.bias"] is weights["q_proj.base_layer.bias"]
    assert all(torch.equal(weights[name], weight) for name, weight in before.items())


def test_weights_without_adapters_are_handed_on() -> None:
    weights = {"a.weight": torch.ones(2), "b.bias": torch.zeros(1)}
    assert [(name, id(weight)) for name, weight in merged(weights, 1.0)] == [(n, id(w)) for n, w in weights.items()]


def test_a_base_in_bf16_is_merged_in_fp32() -> None:
    weights = {
        "q.base_layer.weight": torch.ones(1, 1, dtype=torch.bfloat16),
        "q.lora_A.default.weight": torch.tensor([[2.0**-10]]),  # lost beside 1 in bf16
        "q.lora_B.default.weight": torch.tensor([[1.0]]),
    }
    assert dict(merged(weights, 1.0))["q.weight"].item() == 1 + 2**-10


# ---- which layers ------------------------------------------------------------------------------------------------


def test_adapters_sit_beside_every_linear_layer_of_the_blocks_and_not_beside_the_head(model_folder: Path) -> None:
    model = load_causal_lm(str(model_folder))
    names = target_layers(model, "all-linear")
    assert len(names) == 2 * 7  # q, k, v, o, gate, up, down
    assert "model.layers.1.mlp.down_proj" in names
    assert "lm_head" not in names
    assert target_layers(model, ("q_proj",)) == ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]
    add_adapters(model, Lora(4, 8.0, ("q_proj",), seed=0))
    assert isinstance(model, Qwen2ForCausalLM)
    training = {name: tuple(weight.shape) for name, weight in model.named_parameters() if weight.requires_grad}
    assert training == {
        f"model.layers.{layer}.self_attn.q_proj.lora_{part}.default.weight": shape
        for layer in (0, 1)
        for part, shape in (("A", (4, 64)), ("B", (64, 4)))
    }


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "c_attn"])
def test_a_target_that_is_no_linear_layer_of_the_blocks_is_refused_with_those_that_are(
    model_folder: Path, name: str
) -> None:
    with pytest.raises(ValueError, match=rf"names {name}, which no linear layer .* among q_proj, k_proj, v_proj, o_"):
        target_layers(load_causal_lm(str(model_folder)), ("q_proj", name))


def test_the_first_adapters_follow_the_seed_and_leave_the_random_generator_alone(model_folder: Path) -> None:
    def drawn(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(7)
        model = load_causal_lm(str(model_folder))
        add_adapters(model, Lora(4, 8.0, "all-linear", seed))
        return [weight for name, weight in model.named_parameters() if ".lora_A" in name] + [torch.rand(1)]

    (*one, next_one), (*same, _), (*other, next_other) = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(next_one, next_other)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--learner.lora_targets=q_proj"], r"lora_targets = 'q_proj': expected 'all-linear' or a list of names"),
        (["--learner.lora_targets=[]"], r"lora_targets = \[\]: expected 'all-linear' or a list"),
        (["--learner.lora_rank=-1"], r"learner.lora_rank = -1"),
        (["--learner.lora_alpha=0"], r"learner.lora_alpha = 0"),
        (
            ["--learner.lora_rank=8", "--method.name=ppo"],
            r"critic of method 'ppo' is a second model that is trained in full: set method.params.critic 'head'",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configured(*overrides)


# ---- training ----------------------------------------------------------------------------------------------------


def test_the_first_published_policy_is_the_base_under_its_own_names(model_folder: Path) -> None:
    expected = dict(original(model_folder).named_parameters())
    first = published(make_learner(model_folder, settings(*LORA)))
    assert list(first) == list(expected)
    assert [name for name in expected if not torch.equal(first[name], expected[name])] == []


def rewarded() -> list[Group]:
    """Of each question's three rollouts, which have no token in common, the first is rewarded."""
    rollouts = []
    for index in range(3):
        plain = trajectory(float(index == 0), [3, 2])
        turns = tuple(replace(turn, action_ids=turn.action_ids + 50 * index + 20) for turn in plain.turns)
        rollouts.append(replace(plain, turns=turns))
    return [group(*rollouts), group(*rollouts)]


def test_rewarded_tokens_become_likelier(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings(*LORA, "--method.name=grpo"))
    logprobs = []
    for _ in range(4):
        groups = on_policy(learner, rewarded())
        logprobs.append(sum(float(turn.logprobs.sum()) for g in groups for turn in g.trajectories[0].turns))
        train(learner, groups)
    assert logprobs == sorted(logprobs)
    assert logprobs[-1] > logprobs[0] + 1


def test_only_adapters_move_and_the_saved_model_is_the_one_that_trains(model_folder: Path, tmp_path: Path) -> None:
    learner = make_learner(model_folder, settings(*LORA))
    before = adapters(learner)
    for _ in range(2):
        train(learner, GROUPS)
    learner.save_model(str(tmp_path))
    after = adapters(learner)
    assert before.keys() == after.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    base = original(model_folder)
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), base_weights(learner), strict=True))
    opened = original(tmp_path)
    assert type(opened) is type(base)
    assert not list(tmp_path.glob("adapter*"))
    with torch.no_grad():
        ours, theirs, untrained = (m(IDS).logits for m in (learner.policy.language_model.eval(), opened, base))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert float((untrained - ours).abs().max()) > 0.1
    here = published(learner)
    assert all(torch.equal(here[name], weight) for name, weight in opened.named_parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checkpointed_activations_give_the_same_adapters(model_folder: Path, dtype: str) -> None:
    results = []
    for checkpointing in ("false", "true"):
        options = (f"--learner.dtype={dtype}", f"--learner.gradient_checkpointing={checkpointing}")
        learner = make_learner(model_folder, settings(*LORA, *KL, *options))
        before = adapters(learner)
        for _ in range(2):  # A has no gradient while B is zero
            assert step_metrics([train(learner, GROUPS)])["learner/skipped_updates"] == 0
        results.append(adapters(learner))
    for name in before:
        assert not torch.equal(results[0][name], before[name])
        torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-4, atol=1e-5)


def test_a_critic_that_is_a_head_trains_in_full(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings(*LORA, "--method.name=ppo", "--method.params.critic=head"))
    train(learner, GROUPS)
    assert float(learner.policy.value_head.weight.detach().abs().sum()) > 0


# ---- the reference -----------------------------------------------------------------------------------------------


def test_the_reference_is_the_base_without_a_second_model(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings(*LORA, *KL, "--learner.minibatch_rollouts=6"))
    assert learner.policy.reference is None
    first, *_, last = (step_metrics([train(learner, GROUPS, 1)])["learner/kl_loss"] for _ in range(3))
    assert first == pytest.approx(0, abs=1e-9)
    assert last > 1e-6
    batch = {"ids_BT": IDS, "predicts_N": torch.tensor([1, 2, 3]), "targets_N": IDS[0, 2:]}
    with torch.no_grad():
        base = torch.log_softmax(original(model_folder)(IDS).logits, -1)[0, [1, 2, 3], IDS[0, 2:]]
        torch.testing.assert_close(learner.policy._reference_logprobs(batch), base, rtol=1e-5, atol=1e-5)
        assert float((learner.policy.policy_pass(batch)[1].logprobs_N - base).abs().max()) > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_reference_pass_takes_no_gradient_away(model_folder: Path, dtype: str) -> None:
    # Under autocast it makes bf16 copies of the adapters, which must not be those of the policy's pass.
    norms = []
    for kl in ("0.0", "1e-9"):
        options = (f"--learner.dtype={dtype}", f"--learner.kl_coef={kl}", "--learner.minibatch_rollouts=6")
        learner = make_learner(model_folder, settings(*LORA, *options))
        norms.append(step_metrics([train(learner, GROUPS, 1)])["learner/grad_norm"])
    assert norms[0] > 0
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


# ---- checkpoints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), KL], ids=["plain", "reference"])
def test_a_checkpoint_holds_adapters_alone_and_a_new_process_trains_on_bit_for_bit(
    model_folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    first = make_learner(model_folder, settings(*LORA, *options))
    train(first, GROUPS)
    stored = saved(tmp_path, Learners([first]))
    tensors = load_file(tmp_path / stored.name / "shared" / "tensors-00000.safetensors")
    of_weights = [name for name in tensors if name.startswith("weights.")]
    assert len(of_weights) == 2 * 14
    assert all(".lora_" in name for name in of_weights)
    train(first, GROUPS)
    second = make_learner(model_folder, settings(*LORA, *options))
    load_learners(Learners([second]), stored)  # type: ignore[arg-type]
    train(second, GROUPS)
    ours, theirs = published(first), published(second)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_state_of_other_adapters_is_refused(model_folder: Path, tmp_path: Path) -> None:
    stored = saved(tmp_path, Learners([make_learner(model_folder, settings(*LORA))]))
    for other in (("--learner.lora_rank=2",), ("--learner.lora_rank=0",), ('--learner.lora_targets=["q_proj"]',)):
        learners: Any = Learners([make_learner(model_folder, settings(*LORA, *other))])
        with pytest.raises(ValueError, match="the state is of another model or method"):
            load_learners(learners, stored)
