"""The laboratory's learner against hand-made gradients of the same loss."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from calibadv.config import LearnerConfig
from calibadv.config.learner import SURROGATES
from calibadv.lab.learner import LabLearner
from calibadv.lab.policy import Policy
from calibadv.methods import METHODS, make_method
from calibadv.rewards.turns import with_turn_rewards
from calibadv.types import Group, Trajectory
from tests.build import group, trajectory

SETTINGS = LearnerConfig(lr=1e-3, lr_final=1e-3, weight_decay=0.0, grad_clip=1e9)


def small_policy() -> Policy:
    torch.manual_seed(0)
    return Policy()


def sampled_by(policy: Policy, given: Trajectory) -> Trajectory:
    """The trajectory with the policy's own log-probs, as if it had sampled it."""
    ids = np.concatenate([given.prompt_ids, *(x for t in given.turns for x in (t.action_ids, t.observation_ids))])
    with torch.no_grad():
        logp_TV = torch.log_softmax(policy(torch.tensor(ids)[None])[0] @ policy.embed.weight.T, dim=-1)
    turns, at = [], len(given.prompt_ids)
    for turn in given.turns:
        places = np.arange(at, at + len(turn.action_ids))
        turns.append(replace(turn, logprobs=logp_TV[places - 1, turn.action_ids].numpy()))
        at += len(turn.action_ids) + len(turn.observation_ids)
    return replace(given, turns=tuple(turns))


def pair(policy: Policy) -> Group:
    return group(sampled_by(policy, trajectory(1.0, (3, 2))), sampled_by(policy, trajectory(0.0, (4, 2))))


def test_one_update_follows_the_policy_gradient_over_all_tokens() -> None:
    policy = small_policy()
    twin = copy.deepcopy(policy)
    of = pair(policy)
    metrics = LabLearner(policy, make_method("grpo", {}), SETTINGS).update([of], updates=1, seed=0).metrics
    # By hand: at ratio 1 the surrogate's gradient is that of -sum A log p / 11 tokens, with A = ±1/sqrt(2).
    loss = torch.zeros(())
    for t, advantage in zip(of.trajectories, (2**-0.5, -(2**-0.5)), strict=True):
        ids = np.concatenate([t.prompt_ids, *(x for u in t.turns for x in (u.action_ids, u.observation_ids))])
        logp_TV = torch.log_softmax(twin(torch.tensor(ids)[None])[0] @ twin.embed.weight.T, dim=-1)
        at = len(t.prompt_ids)
        for turn in t.turns:
            places = np.arange(at, at + len(turn.action_ids))
            loss = loss - advantage * logp_TV[places - 1, turn.action_ids].sum() / 11
            at += len(turn.action_ids) + len(turn.observation_ids)
    torch.autograd.backward(loss)
    grads = [p.grad for p in twin.parameters() if p.grad is not None]
    norm = float(torch.sqrt(sum((g**2).sum() for g in grads)))
    assert abs(metrics["learner/grad_norm"] - norm) < 1e-3 * norm
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3, betas=SETTINGS.betas, weight_decay=0.0)
    optimizer.step()
    moved = torch.cat([(a - b).detach().flatten() for a, b in zip(policy.parameters(), twin.parameters(), strict=True)])
    assert float(moved.abs().median()) < 1e-6


def test_groups_without_credit_change_nothing() -> None:
    policy = small_policy()
    before = copy.deepcopy(policy.state_dict())
    equal = group(sampled_by(policy, trajectory(1.0, (2, 2))), sampled_by(policy, trajectory(1.0, (2, 2))))
    updated = LabLearner(policy, make_method("grpo", {}), SETTINGS).update([equal], updates=2, seed=0)
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())
    assert not any(row_N.any() for row_N in updated.credit[0])


@pytest.mark.parametrize("idle", [True, False])
def test_a_mini_batch_without_credit_is_an_update_as_in_training_where_it_is_not_left_out(idle: bool) -> None:
    policy = small_policy()
    learner = LabLearner(policy, make_method("grpo", {}), SETTINGS, idle_updates=idle)
    learner.update([pair(policy)], updates=1, seed=0)
    before = copy.deepcopy(policy.state_dict())
    equal = group(sampled_by(policy, trajectory(1.0, (2, 2))), sampled_by(policy, trajectory(1.0, (2, 2))))
    metrics = learner.update([equal], updates=1, seed=0).metrics
    moved = any(not torch.equal(before[name], value) for name, value in policy.state_dict().items())
    assert (metrics["learner/updates"], moved) == (idle, idle)  # by what momentum is left


def test_a_rollout_without_credit_counts_in_the_divisor() -> None:
    policy = small_policy()
    two = pair(policy)
    three = group(*two.trajectories, sampled_by(policy, trajectory(0.5, (4, 3))))
    norms = [
        LabLearner(copy.deepcopy(policy), make_method("grpo", {}), SETTINGS)
        .update([of], updates=1, seed=0)
        .metrics["learner/grad_norm"]
        for of in (two, three)
    ]
    # A = ±1/sqrt(2) over 11 tokens, and ±1 over 18, of which seven have no credit.
    assert norms[1] == pytest.approx(norms[0] * 2**0.5 * 11 / 18, rel=1e-4)


def test_an_update_that_is_not_finite_is_left_out_and_counted() -> None:
    policy = small_policy()
    before = copy.deepcopy(policy.state_dict())
    sound = sampled_by(policy, trajectory(0.0, (4, 2)))  # which has a gradient
    broken = group(trajectory(1.0, (3, 2), logprob=float("nan")), sound)
    metrics = LabLearner(policy, make_method("grpo", {}), SETTINGS).update([broken], updates=1, seed=0).metrics
    assert (metrics["learner/updates"], metrics["learner/skipped_updates"]) == (1, 1)
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())


def test_recomputed_log_probs_are_the_learner_s_own() -> None:
    policy = small_policy()
    off = group(trajectory(1.0, (3, 2), logprob=-9.0), trajectory(0.0, (4, 2), logprob=-9.0))  # no policy's log-probs
    sampler, recompute = (
        LabLearner(copy.deepcopy(policy), make_method("grpo", {}), SETTINGS.model_copy(update={"old_logprobs": old}))
        for old in ("sampler", "recompute")
    )
    assert sampler.update([off], updates=1, seed=0).metrics["learner/clipped_share"] > 0
    assert recompute.update([off], updates=1, seed=0).metrics["learner/clipped_share"] == 0


def test_credit_comes_back_in_the_groups_order() -> None:
    policy = small_policy()
    first, second = pair(policy), pair(policy)
    second = replace(second, question=replace(second.question, id="test/other"))
    longer = Group(second.question, (*second.trajectories, sampled_by(policy, trajectory(0.5, (9, 9)))))
    credit = LabLearner(policy, make_method("grpo", {}), SETTINGS).update([first, longer], updates=3, seed=1).credit
    assert [[len(row_N) for row_N in rows] for rows in credit] == [[5, 6], [5, 6, 18]]


def test_a_critic_learns_what_the_rewards_are() -> None:
    policy = small_policy()
    learner = LabLearner(policy, make_method("ppo", {"critic_lr": 3e-3}), SETTINGS.model_copy(update={"lr": 1e-9}))
    of = pair(policy)
    losses = [learner.update([of], updates=1, seed=0).metrics["learner/value_loss"] for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_with_every_surrogate_and_divisor(name: str) -> None:
    """Two updates of each: the second one's ratios are not 1."""
    for surrogate, divisor in itertools.product(SURROGATES, ("tokens", "sequences", "constant")):
        policy = small_policy()
        of = with_turn_rewards(pair(policy), [[0.2, 1.0], [0.0, -1.0]])
        given: dict[str, Any] = {"surrogate": surrogate, "divisor": divisor, "token_mask": (0.5, 2.0)}
        given |= {"divisor_tokens": 8} if divisor == "constant" else {}
        settings = LearnerConfig(lr=1e-3, lr_final=1e-3, old_logprobs="recompute", importance_cap=2.0, **given)
        learner = LabLearner(policy, make_method(name, {}), settings)
        metrics = learner.update([of], updates=1, seed=0, passes=2).metrics
        assert (metrics["learner/updates"], metrics["learner/skipped_updates"]) == (2, 0), given
        assert metrics["learner/grad_norm"] > 0, given
        assert 0 <= metrics["learner/masked_share"] < 1
