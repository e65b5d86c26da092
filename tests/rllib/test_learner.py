"""The learner: the update by hand, independent of how it is cut up, and safe against what is not finite."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from transformers import AutoModelForCausalLM

from calibadv.batching import shard_groups, to_row
from calibadv.config import Config
from calibadv.methods import METHODS, Method
from calibadv.rllib.learner import PolicyLearner
from calibadv.rllib.lr_schedule import policy_rate
from calibadv.rllib.totals import UpdateTotals, clipped_tokens, step_metrics, trained_credit
from calibadv.types import Group
from tests.build import group, trajectory
from tests.rllib.conftest import algorithm_config, settings

GROUPS = [
    group(
        trajectory(1.0, [3, 2], [["a", "b"]]),
        trajectory(0.0, [4, 2], [["a"]]),
        trajectory(0.5, [2, 5], [["c"]]),
    ),
    group(trajectory(0.0, [2, 2]), trajectory(1.0, [5, 1], [["d"]]), trajectory(0.0, [1, 1], [["d", "e"]])),
]


def make_learner(model_folder: Path, config: Config, method: Method | None = None) -> PolicyLearner:
    """`method` in place of the configured one."""
    algorithm = algorithm_config(model_folder, config, method)
    learner = PolicyLearner(
        config=algorithm, module_spec=algorithm.get_default_rl_module_spec().as_multi_rl_module_spec()
    )
    learner.build()
    return learner


def train(learner: PolicyLearner, groups: list[Group], num_minibatches: int = 2) -> dict[str, Any]:
    (shard,) = shard_groups(groups, num_minibatches=num_minibatches, num_shards=1, seed=0)
    return learner.update(TrainingData(episodes=shard), num_minibatches=num_minibatches)


def weights(learner: PolicyLearner) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in learner.policy.language_model.named_parameters()}


def on_policy(learner: PolicyLearner, groups: list[Group]) -> list[Group]:
    """The groups with the learner's own log-probs as the sampler's."""
    model = learner.policy.language_model
    result = []
    for g in groups:
        trajectories = []
        for t in g.trajectories:
            row = to_row(t, np.zeros(t.num_actions, np.float32))
            with torch.no_grad():
                logits = model(torch.from_numpy(row.ids_T)[None]).logits[0]
            logprobs_T = torch.log_softmax(logits[:-1], -1).gather(-1, torch.from_numpy(row.ids_T[1:])[:, None])[:, 0]
            flat, start, turns = logprobs_T.numpy()[row.action_T[1:]], 0, []
            for turn in t.turns:
                turns.append(replace(turn, logprobs=flat[start : start + len(turn.action_ids)]))
                start += len(turn.action_ids)
            trajectories.append(replace(t, turns=tuple(turns)))
        result.append(replace(g, trajectories=tuple(trajectories)))
    return result


def test_gradient_is_the_token_mean_over_the_whole_mini_batch(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings("--learner.minibatch_rollouts=6", "--learner.grad_clip=1e9"))
    groups = on_policy(learner, GROUPS)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    loss, tokens = torch.zeros(()), 0
    for g in groups:
        for t, advantages in zip(g.trajectories, METHODS["calibadv"]().advantages(g), strict=True):
            row = to_row(t, advantages)
            logp = torch.log_softmax(model(torch.from_numpy(row.ids_T)[None]).logits[0, :-1], -1)
            chosen = logp.gather(-1, torch.from_numpy(row.ids_T[1:])[:, None])[:, 0][torch.from_numpy(row.action_T[1:])]
            loss = loss - (chosen * torch.from_numpy(advantages)).sum()  # at ratio 1 the surrogate's gradient
            tokens += len(advantages)
    (loss / tokens).backward()
    expected = math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters()))
    metrics = step_metrics([train(learner, groups, num_minibatches=1)])
    assert metrics["learner/grad_norm"] == pytest.approx(expected, rel=1e-4)
    assert metrics["learner/tokens"] == tokens
    assert metrics["sync/logprob_diff_mean"] < 1e-5


def test_engine_and_learner_are_compared_on_the_weights_that_sampled_alone(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings())
    first, second = (step_metrics([train(learner, groups)]) for groups in [on_policy(learner, GROUPS)] * 2)
    assert first["learner/updates"] == 2
    assert first["sync/logprob_diff_max"] < 1e-5  # not those of the second mini-batch, which the first update moved
    assert second["sync/logprob_diff_max"] > 1e-2


def test_update_does_not_depend_on_the_micro_batch_budget(model_folder: Path) -> None:
    results = []
    for budget in ("12", "100000"):
        learner = make_learner(model_folder, settings(f"--learner.token_budget={budget}"))
        train(learner, GROUPS)
        results.append(weights(learner))
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-4, atol=1e-5)


def test_equal_rewards_leave_the_weights_as_they_are(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings())
    before = weights(learner)
    train(learner, [group(*(trajectory(0.5, [3, 2]) for _ in range(3))) for _ in range(2)])
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(learner).items())


def test_a_step_that_is_not_finite_is_skipped_and_counted(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings())
    before = weights(learner)
    poisoned = [
        group(trajectory(1.0, [3, 2], logprob=float("nan")), trajectory(0.0, [3, 2], logprob=float("nan"))),
    ]
    metrics = step_metrics([train(learner, poisoned, num_minibatches=1)])
    assert metrics["learner/skipped_updates"] == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(learner).items())
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("order", [(math.nan, 0.0), (0.0, math.nan)])
def test_a_log_prob_that_is_no_number_is_no_largest_difference_of_zero(order: tuple[float, ...]) -> None:
    def totals(*logprobs: float) -> dict[str, Any]:
        made = UpdateTotals()
        for logprob in logprobs:
            out = {"logprobs_N": torch.tensor([logprob]), "entropy_N": torch.zeros(1)}
            made.add_tokens({"sampler_logprobs_N": torch.zeros(1)}, out, fresh=True)
        return made.as_dict()

    for ranks in ([totals(0.5, 0.25)], [totals(0.25), totals(0.5)]):
        assert step_metrics(ranks)["sync/logprob_diff_max"] == 0.5
    for ranks in ([totals(*order)], [totals(logprob) for logprob in order]):
        assert "sync/logprob_diff_max" not in step_metrics(ranks)


def test_cosine_ends_at_the_final_rate(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings("--learner.lr_final=1e-3"))  # 4 steps x 2 updates
    rates = [train(learner, GROUPS)["lr"] for _ in range(4)]
    by_hand = [1e-3 + 9e-3 * (1 + math.cos(math.pi * update / 8)) / 2 for update in (1, 3, 5, 7)]
    assert rates == pytest.approx(by_hand)


def test_a_mini_batch_without_rollouts_counts_as_an_update_in_the_schedule(model_folder: Path) -> None:
    config = settings("--learner.minibatch_rollouts=6")  # one update a step, 4 steps
    learner = make_learner(model_folder, config)
    assert train(learner, [], 1)["updates"] == 0
    assert train(learner, GROUPS, 1)["lr"] == policy_rate(config, 1) < policy_rate(config, 0)


def test_while_the_critic_learns_alone_the_policy_rests(model_folder: Path) -> None:
    options = ("--method.name=ppo", "--learner.critic_only_steps=1", "--method.params.critic=head")
    learner = make_learner(model_folder, settings(*options))
    before, head = weights(learner), learner.policy.value_head.weight.detach().clone()
    train(learner, GROUPS)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(learner).items())
    assert not learner.get_optimizer(
        DEFAULT_MODULE_ID, "policy"
    ).state  # no moments of gradients that it did not follow
    assert not torch.equal(head, learner.policy.value_head.weight)
    train(learner, GROUPS)
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(learner).items())


def test_a_second_pass_trains_every_rollout_again_on_the_credit_and_log_probs_of_the_first(model_folder: Path) -> None:
    def trained(passes: int) -> dict[str, Any]:
        learner = make_learner(model_folder, settings(f"--learner.passes={passes}", "--learner.old_logprobs=recompute"))
        (shard,) = shard_groups(GROUPS, num_minibatches=2, num_shards=1, seed=0, passes=passes)
        return learner.update(TrainingData(episodes=shard), num_minibatches=2 * passes)

    once, twice = trained(1), trained(2)
    assert (once["updates"], twice["updates"]) == (2, 4)
    assert twice["sums"]["tokens"] == 2 * once["sums"]["tokens"]
    one, two = (trained_credit([totals])["test/q"] for totals in (once, twice))
    assert [row.tolist() for row in two] == [row.tolist() for row in one]
    # Clipping is against the step's start: the second pass, three and more updates away from it, is clipped more.
    assert sum(twice["clipped"].values()) > 2 * sum(once["clipped"].values())


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("--learner.lora_rank=4",),
        ("--learner.gradient_checkpointing=true",),
        ("--method.name=ppo",),  # a critic that is a model
        ("--method.name=criticsearch",),
        ("--learner.kl_coef=0.1", "--learner.old_logprobs=recompute"),
    ],
    ids=lambda overrides: " ".join(overrides) or "plain",
)
def test_an_update_is_the_same_with_packed_and_with_padded_rows(model_folder: Path, overrides: tuple[str, ...]) -> None:
    after = []
    for pack in ("true", "false"):
        given = (f"--learner.pack_rows={pack}", "--learner.lr=1e-3", "--learner.token_budget=200", *overrides)
        learner = make_learner(model_folder, settings(*given))
        assert learner.policy.packs_rows == (pack == "true")
        before = {name: p.detach().clone() for name, p in learner.policy.named_parameters()}
        train(learner, GROUPS)
        after.append({name: p.detach() - before[name] for name, p in learner.policy.named_parameters()})
    packed, padded = after
    assert max(float(change.abs().max()) for change in padded.values()) > 5e-4
    for name, change in packed.items():
        if not name.endswith("k_proj.bias"):  # all scores alike: of rounding Adam makes steps of the rate
            torch.testing.assert_close(change, padded[name], atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_log_probs_that_train_are_of_the_rollouts_temperature_and_the_comparison_s_of_1(model_folder: Path) -> None:
    options = ("--rollout.temperature=0.5", "--learner.kl_coef=0.1", "--learner.old_logprobs=recompute")
    learner = make_learner(model_folder, settings(*options, "--learner.minibatch_rollouts=6"))
    batch = {"ids_BT": torch.tensor([[1, 2, 3]]), "predicts_N": torch.tensor([0, 1])}
    batch["targets_N"] = batch["ids_BT"][0, 1:]
    logits = learner.policy.language_model(batch["ids_BT"]).logits[0, :2]
    ours = learner.policy.forward_train(batch)
    expected = torch.distributions.Categorical(logits=logits / 0.5)
    torch.testing.assert_close(ours["logprobs_N"], expected.log_prob(batch["targets_N"]))
    torch.testing.assert_close(ours["entropy_N"], expected.entropy())
    assert torch.equal(ours["reference_logprobs_N"], ours["logprobs_N"])  # the reference is still the policy
    inner, seen = learner.policy.policy_pass, []

    def watched(batch: dict[str, torch.Tensor], temperature: float) -> Any:
        seen.append(temperature)
        return inner(batch, temperature)

    learner.policy.policy_pass = watched
    (shard,) = shard_groups(GROUPS, num_minibatches=1, num_shards=1, seed=0)
    learner.compare_logprobs(shard)
    compared = len(seen)
    learner.update(TrainingData(episodes=shard), num_minibatches=1)
    assert set(seen[:compared]) == {1.0}
    assert set(seen[compared:]) == {0.5}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_log_probs_values_and_the_comparison_are_of_the_network_that_trains(model_folder: Path, dtype: str) -> None:
    options = ("--method.name=ppo", "--learner.old_logprobs=recompute", "--learner.minibatch_rollouts=6")
    learner = make_learner(model_folder, settings(*options, f"--learner.dtype={dtype}", "--learner.token_budget=10000"))
    inner, autocast, passed = learner.policy.policy_pass, [], []

    def watched(batch: dict[str, torch.Tensor], temperature: float) -> Any:
        hidden, stats = inner(batch, temperature)
        autocast.append(torch.is_autocast_enabled("cpu"))
        passed.append(stats.logprobs_N.detach())
        return hidden, stats

    learner.policy.policy_pass = watched
    (shard,) = shard_groups(GROUPS, num_minibatches=1, num_shards=1, seed=0)
    learner.compare_logprobs(shard)
    learner.update(TrainingData(episodes=shard), num_minibatches=1)
    assert autocast == 3 * [dtype == "bfloat16"]  # compared, recomputed, trained
    assert all(torch.equal(logprobs, passed[0]) for logprobs in passed)
    batch = {"ids_BT": torch.tensor([[1, 2, 3]]), "predicts_N": torch.tensor([0, 1])}
    batch["targets_N"] = batch["ids_BT"][0, 1:]
    assert {name: tensor.dtype for name, tensor in learner.policy.forward_train(batch).items()} == {
        "logprobs_N": torch.float32,
        "entropy_N": torch.float32,
        "values_N": torch.float32,
    }


@pytest.mark.parametrize(
    ("options", "policy", "reference", "critic"),
    [
        # Each trains once; before that there is one pass, of whatever is asked for.
        (("--method.name=ppo",), 1, 0, 2),
        (("--method.name=ppo", "--learner.old_logprobs=recompute"), 2, 0, 2),
        (("--method.name=ppo", "--method.params.critic=head"), 2, 0, 0),
        (("--method.name=ppo", "--method.params.critic=head", "--learner.old_logprobs=recompute"), 2, 0, 0),
        (("--method.name=ppo", "--method.params.kl_reward=0.1"), 1, 1, 2),
        (("--method.name=ppo", "--learner.kl_coef=0.1"), 1, 1, 2),
        # Two micro-batches train: a rollout of GROUPS has no credit.
        (("--method.name=grpo", "--learner.kl_coef=0.1", "--learner.old_logprobs=recompute"), 3, 2, 0),
    ],
)
def test_a_step_passes_nothing_twice_and_nothing_for_nobody(
    model_folder: Path, options: tuple[str, ...], policy: int, reference: int, critic: int
) -> None:
    more = ("--learner.minibatch_rollouts=6", "--learner.token_budget=10000")
    learner = make_learner(model_folder, settings(*options, *more))
    module, passed = learner.policy, Counter[str]()
    trunks = {"policy": module.language_model.base_model, "critic": module.value_trunk}
    trunks["reference"] = module.reference and module.reference.base_model
    for name, trunk in trunks.items():
        if trunk is not None:
            trunk.register_forward_hook(lambda *_, name=name: passed.update([name]))
    train(learner, GROUPS, 1)
    assert passed == Counter(policy=policy, reference=reference, critic=critic)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputed_old_logprobs_make_the_first_ratio_one(model_folder: Path, dtype: str) -> None:
    # The sampler's log-probs are far off; recomputed, nothing is clipped in the first update.
    options = ("--learner.old_logprobs=recompute", "--learner.minibatch_rollouts=6", "--learner.importance_cap=2.0")
    options = (*options, f"--learner.dtype={dtype}")
    sampler = train(make_learner(model_folder, settings("--learner.minibatch_rollouts=6")), GROUPS, 1)
    recomputed = train(make_learner(model_folder, settings(*options)), GROUPS, 1)
    assert clipped_tokens([recomputed]).total() == 0
    assert clipped_tokens([sampler]).total() > 0


def test_kl_is_zero_at_the_start_and_grows_with_the_distance(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings("--learner.kl_coef=0.1", "--learner.minibatch_rollouts=6"))
    first, second = (step_metrics([train(learner, GROUPS, 1)])["learner/kl_loss"] for _ in range(2))
    assert first == pytest.approx(0, abs=1e-9)
    assert second > 1e-6


def test_entropy_bonus_raises_entropy(model_folder: Path) -> None:
    equal = [group(*(trajectory(0.5, [3, 2]) for _ in range(3))) for _ in range(2)]
    learner = make_learner(model_folder, settings("--learner.entropy_coef=1.0", "--learner.lr=1e-3"))
    entropies = [step_metrics([train(learner, equal)])["policy/entropy"] for _ in range(3)]
    assert entropies[2] > entropies[0]


def test_saved_model_opens_with_from_pretrained_and_holds_the_trained_weights(
    model_folder: Path, tmp_path: Path
) -> None:
    learner = make_learner(model_folder, settings("--model.dtype=float32"))
    train(learner, GROUPS)
    learner.save_model(str(tmp_path))
    opened = dict(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).named_parameters())
    for name, tensor in weights(learner).items():
        torch.testing.assert_close(opened[name], tensor, rtol=0, atol=0)


def test_tokens_of_weight_zero_are_neither_in_the_loss_nor_in_its_divisor(model_folder: Path) -> None:
    def keep_first(g: Group) -> list[Any]:
        return [np.full(t.num_actions, float(i == 0), np.float32) for i, t in enumerate(g.trajectories)]

    def only_first(g: Group) -> list[Any]:
        rows = METHODS["grpo"]().advantages(g)
        return [rows[0], *(np.zeros_like(row) for row in rows[1:])]

    grad_norms = []
    # All tokens with the others' advantage 0, or the others weighing nothing: the same sum over fewer tokens.
    for method in (
        replace(METHODS["grpo"](), weights=keep_first),
        replace(METHODS["grpo"](), advantages=only_first),
    ):
        learner = make_learner(model_folder, settings("--learner.minibatch_rollouts=6"), method)
        totals = train(learner, on_policy(learner, GROUPS), 1)
        grad_norms.append(step_metrics([totals])["learner/grad_norm"])
        first, *others = trained_credit([totals])["test/q"]
        assert first.all()
        assert not any(row.any() for row in others)  # what weighs nothing did not train
    kept = sum(g.trajectories[0].num_actions for g in GROUPS)
    everything = sum(t.num_actions for g in GROUPS for t in g.trajectories)
    assert grad_norms[0] == pytest.approx(grad_norms[1] * everything / kept, rel=1e-4)


def test_an_update_whose_tokens_all_weigh_nothing_changes_nothing(model_folder: Path) -> None:
    def nothing(g: Group) -> list[Any]:
        return [np.zeros(t.num_actions, np.float32) for t in g.trajectories]

    method = replace(METHODS["grpo"](), weights=nothing)
    learner = make_learner(model_folder, settings(), method)
    before = weights(learner)
    metrics = step_metrics([train(learner, GROUPS)])
    assert metrics["learner/loss"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(learner).items())


def test_lld_trains_groups_of_equal_rewards_once_the_policy_has_moved(model_folder: Path) -> None:
    learner = make_learner(model_folder, settings("--method.name=lld"))
    equal = [group(*(trajectory(0.5, [3, 2]) for _ in range(3))) for _ in range(2)]
    before = weights(learner)
    assert step_metrics([train(learner, on_policy(learner, equal))])["learner/extra_loss"] == pytest.approx(0, abs=1e-6)
    on_it = on_policy(learner, equal)  # again: where rounding lets a token fall by 1e-7, the update raised it
    higher = [
        replace(
            g,
            trajectories=tuple(
                replace(t, turns=tuple(replace(u, logprobs=u.logprobs + 1) for u in t.turns)) for t in g.trajectories
            ),
        )
        for g in on_it
    ]
    metrics = step_metrics([train(learner, higher)])
    assert metrics["learner/extra_loss"] > 0.1  # all tokens fell by about a nat: 0.2 * 1
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(learner).items())


@pytest.mark.parametrize("kind", ["model", "head"])
def test_a_critic_learns_the_returns_and_its_advantages_are_what_trained(model_folder: Path, kind: str) -> None:
    options = ("--method.name=ppo", f"--method.params.critic={kind}", "--learner.minibatch_rollouts=6")
    learner = make_learner(model_folder, settings(*options, "--run.steps=40"))
    groups = [replace(g, question=replace(g.question, id=f"test/{i}")) for i, g in enumerate(GROUPS)]
    first, *_, last = (train(learner, groups, 1) for _ in range(30))
    assert step_metrics([first])["critic/return_mean"] == pytest.approx(
        sum(t.reward * t.num_actions for g in groups for t in g.trajectories)
        / sum(t.num_actions for g in groups for t in g.trajectories)
    )
    assert step_metrics([last])["learner/value_loss"] < step_metrics([first])["learner/value_loss"] / 2
    # At first the critic says 0: advantages are the whitened returns, positive where the reward is above the mean.
    rows = first["credit"]["test/0"]
    assert (rows[0] > 0).all()
    assert (rows[1] < 0).all()


def test_a_head_does_not_touch_the_policys_features(model_folder: Path) -> None:
    # Equal rewards over the whole step: whitened advantages are 0, and only the critic has something to learn.
    options = ("--method.name=ppo", "--method.params.critic=head", "--learner.minibatch_rollouts=6")
    learner = make_learner(model_folder, settings(*options))
    before = weights(learner)
    equal = [group(*(trajectory(0.5, [3, 2]) for _ in range(3))) for _ in range(2)]
    train(learner, equal, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(learner).items())
    assert float(learner.policy.value_head.bias.detach()) != 0
