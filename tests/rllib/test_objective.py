"""The terms of the loss by hand: what a token that weighs nothing takes part in."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from calibadv.batching import to_row
from calibadv.config import LearnerConfig
from calibadv.methods import make_method
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.micro_batches import MicroBatch, micro_batches
from calibadv.rllib.objective import Divisors, count, loss_terms, to_tensors, total
from calibadv.surrogates import PolicyTokens, Surrogate
from tests.build import trajectory


def terms(weights: list[float], divisors: Divisors) -> dict[str, float]:
    """Of four tokens whose log-probs are 0 and whose reference's are 0, 1, 2 and 3; entropies 1, 2, 3 and 4."""
    zeros, count = torch.zeros(4), torch.arange(4.0)
    of_one = torch.zeros(4, dtype=torch.int64)
    batch = {"old_logprobs_N": zeros, "weights_N": torch.tensor(weights), "advantages_N": zeros}
    batch |= {"row_N": of_one, "turn_N": of_one}
    out = {"logprobs_N": zeros, "reference_logprobs_N": count, "entropy_N": count + 1}
    settings = LearnerConfig(kl_coef=0.1, entropy_coef=0.01)
    return {name: float(term) for name, term in loss_terms(batch, out, divisors, settings, grpo()).items()}


def test_kl_and_entropy_leave_out_what_weighs_nothing() -> None:
    # SimpleTIR's void rollouts: tokens 1 and 3. KL e^d - d - 1 of d = 0 and 2; entropies 1 and 3; two tokens are kept.
    found = terms([1, 0, 1, 0], Divisors(surrogate=2, kept=2, actions=4, extra=0))
    assert found["kl"] == pytest.approx(0.1 * (math.exp(2) - 3) / 2)
    assert found["entropy"] == pytest.approx(-0.01 * (1 + 3) / 2)


def test_a_weight_between_counts_as_a_whole_token_there() -> None:
    found = terms([0.5, 0.5, 1, 1], Divisors(surrogate=3, kept=4, actions=4, extra=0))
    assert found["entropy"] == pytest.approx(-0.01 * 10 / 4)


def test_nothing_kept_is_no_loss() -> None:
    assert set(terms([0, 0, 0, 0], Divisors(surrogate=0, kept=0, actions=4, extra=0)).values()) == {0.0}


# ---- surrogates, divisors and corrections, over two rollouts of 2 and 4 tokens ---------------------------------------

CPU = torch.device("cpu")
OLD = [-1.0, -2.0, -1.0, -2.0, -3.0, -4.0]
NEW = [-0.5, -2.5, -1.2, -1.0, -3.0, -4.4]
ADVANTAGES = [1.0, 1.0, -0.5, -0.5, 2.0, -1.0]


def packed(sampler: list[float] | None = None, weights: list[float] | None = None) -> MicroBatch:
    """One micro-batch of both; the longer rollout is its first row."""
    rows = []
    for part, lengths in ((slice(0, 2), [1, 1]), (slice(2, 6), [2, 2])):
        row = to_row(trajectory(1.0, lengths), np.array(ADVANTAGES[part], np.float32))
        changed: dict[str, Any] = {"old_logprobs_N": np.array(OLD[part], np.float32)}
        if sampler is not None:
            changed["sampler_logprobs_N"] = np.array(sampler[part], np.float32)
        if weights is not None:
            changed["weights_N"] = np.array(weights[part], np.float32)
        rows.append(replace(row, **changed))
    (micro,) = micro_batches(rows, 1000)
    return micro


def loss(micro: MicroBatch, method: Method | None = None, **settings: Any) -> tuple[float, list[float], torch.Tensor]:
    """The loss and its gradient, tokens in the order of OLD, and the mask of those that a correction took out."""
    given = LearnerConfig(**settings)
    logprobs = torch.tensor(NEW[2:] + NEW[:2], requires_grad=True)
    out = {"logprobs_N": logprobs, "entropy_N": torch.zeros(6)}
    terms = loss_terms(to_tensors(micro, CPU), out, count([micro], CPU, given), given, method or grpo())
    whole = total(terms)
    torch.autograd.backward(whole)
    assert logprobs.grad is not None
    gradient = logprobs.grad.tolist()
    return float(whole.detach()), gradient[4:] + gradient[:4], out.get("masked_N", torch.zeros(6, dtype=torch.bool))


def test_by_default_the_loss_is_to_the_bit_what_it_was() -> None:
    torch.manual_seed(0)
    logprobs, old, advantages = torch.randn(3, 500)
    weights, index = torch.rand(500), torch.zeros(500, dtype=torch.int64)
    ours, before = (logprobs.clone().requires_grad_() for _ in range(2))
    batch = {"old_logprobs_N": old, "weights_N": weights, "advantages_N": advantages, "row_N": index, "turn_N": index}
    out = {"logprobs_N": ours}
    terms = loss_terms(batch, out, Divisors(321.0, 500, 500, 0), LearnerConfig(), grpo())
    torch.autograd.backward(total(terms))
    # As it stood before there was a choice.
    ratio = (before - old).clamp(-20, 20).exp()
    free, bounded = ratio * advantages, ratio.clamp(1 - 0.2, 1 + 0.2) * advantages
    then = -(torch.minimum(free, bounded) * weights).sum() / 321.0
    torch.autograd.backward(then)
    assert ours.grad is not None
    assert before.grad is not None
    assert torch.equal(terms["surrogate"], then)
    assert torch.equal(ours.grad, before.grad)
    assert torch.equal(out["clipped_N"], bounded < free)


def test_the_divisor_is_tokens_or_rollouts_or_a_constant() -> None:
    # r: e^0.5 e^-0.5 | e^-0.2 e 1 e^-0.4; clipped at 1.2 above: the first; e·-0.5 is not, e^-0.4·-1 is at 0.8.
    objectives = [1.2, math.exp(-0.5), -0.5 * math.exp(-0.2), -0.5 * math.e, 2.0, -0.8]
    first, second = sum(objectives[:2]), sum(objectives[2:])
    assert loss(packed())[0] == pytest.approx(-(first + second) / 6)
    assert loss(packed(), divisor="sequences")[0] == pytest.approx(-(first / 2 + second / 4) / 2)
    assert loss(packed(), divisor="constant", divisor_tokens=10)[0] == pytest.approx(-(first + second) / 20)


def test_a_rollout_that_weighs_nothing_is_in_no_divisor() -> None:
    weights = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    first = 1.2 + math.exp(-0.5)
    assert loss(packed(weights=weights))[0] == pytest.approx(-first / 2)
    assert loss(packed(weights=weights), divisor="sequences")[0] == pytest.approx(-first / 2)
    assert loss(packed(weights=weights), divisor="constant", divisor_tokens=10)[0] == pytest.approx(-first / 10)


def test_what_a_mini_batch_counts_is_counted_over_its_micro_batches() -> None:
    weights = [1.0, 0.5, 0.0, 0.0, 0.25, 1.0]
    micro = packed(weights=weights)
    extra = replace(micro, tokens={**micro.tokens, "extra_counts_N": np.array([1, 0, 1, 1, 0, 0], np.float32)})
    assert count([micro, extra], CPU, LearnerConfig()) == Divisors(surrogate=5.5, kept=8, actions=12, extra=3)
    first = packed(weights=[1.0, 0.5, 0.0, 0.0, 0.0, 0.0])
    assert count([micro, first], CPU, LearnerConfig(divisor="sequences")).surrogate == 2 + 1


def test_a_token_that_weighs_nothing_is_not_clipped() -> None:
    def clipped(weights: list[float]) -> list[bool]:
        micro, out = packed(weights=weights), {"logprobs_N": torch.tensor(NEW[2:] + NEW[:2])}
        loss_terms(to_tensors(micro, CPU), out, count([micro], CPU, LearnerConfig()), LearnerConfig(), grpo())
        flags = out["clipped_N"].tolist()
        return flags[4:] + flags[:4]

    assert clipped([1.0] * 6) == [True, False, False, False, False, True]
    assert clipped([0.0, 1.0, 1.0, 1.0, 1.0, 0.5]) == [False, False, False, False, False, True]


def test_a_critic_s_error_is_the_mean_over_all_action_tokens_whatever_they_weigh() -> None:
    micro, learner = packed(weights=[1.0, 0.5, 0.0, 0.0, 0.0, 0.0]), LearnerConfig(divisor="sequences")
    batch = to_tensors(micro, CPU) | {"values_N": torch.zeros(6), "returns_N": torch.tensor([1.0, 2, 0, 0, 0, 3])}
    out = {"logprobs_N": torch.zeros(6), "values_N": torch.full((6,), 0.1)}
    found = loss_terms(batch, out, count([micro], CPU, learner), learner, make_method("ppo", {}))
    # Misses 0.9, 1.9, 0.1 three times, 2.9; no value moved further than the clip.
    assert float(found["value"]) == pytest.approx(0.5 * (0.81 + 3.61 + 3 * 0.01 + 8.41) / 6)


def test_each_name_is_its_surrogate() -> None:
    # What one token of the loss's gradient is: the last one's, A = -1, r = e^-0.4.
    def last(**settings: Any) -> float:
        return 6 * loss(packed(), **settings)[1][5]

    assert last() == 0  # below 0.8
    assert last(surrogate="cispo") == pytest.approx(0.8)
    tau, ratio = 1.05, math.exp(-0.4)
    sigma = 1 / (1 + math.exp(-tau * (ratio - 1)))
    assert last(surrogate="sapo") == pytest.approx(4 * sigma * (1 - sigma) * ratio)
    of_rollout, of_turn = math.exp((-0.2 + 1.0 + 0.0 - 0.4) / 4), math.exp(-0.4 / 2)
    assert last(surrogate="gspo") == pytest.approx(of_rollout)
    assert last(surrogate="gspo_turn") == pytest.approx(of_turn)
    assert last(surrogate="gspo_turn", clip=0.1) == 0
    assert last(surrogate="gspo", clip=0.2, dual_clip=1.05) == 0


def test_clip_higher_and_dual_clip_are_the_surrogates() -> None:
    assert loss(packed())[1][0] == 0  # r = e^0.5, A = 1
    assert 6 * loss(packed(), clip_high=0.7)[1][0] == pytest.approx(-math.exp(0.5))
    assert 6 * loss(packed())[1][3] == pytest.approx(0.5 * math.e)  # r = e, A = -0.5
    assert loss(packed(), dual_clip=2.5)[1][3] == 0


def test_a_method_s_own_surrogate_is_climbed() -> None:
    def straight(tokens: PolicyTokens) -> Surrogate:
        return Surrogate(tokens.advantages_N * tokens.logprobs_N)

    value, gradient, _ = loss(packed(), replace(grpo(), surrogate=straight))
    assert value == pytest.approx(-sum(a * b for a, b in zip(ADVANTAGES, NEW, strict=True)) / 6)
    assert gradient == pytest.approx([-a / 6 for a in ADVANTAGES])


def test_a_masked_token_has_no_gradient_and_stays_in_the_divisor() -> None:
    sampler = [*OLD[:3], OLD[3] + 1.0, *OLD[4:]]  # the fourth is likelier for the engine: 1/e
    whole, kept = loss(packed(sampler))[1], {"old_logprobs": "recompute"}
    _, gradient, masked = loss(packed(sampler), token_mask=(0.5, 2.0), **kept)
    assert masked.tolist() == [False, True, False, False, False, False]
    assert gradient == pytest.approx([0.0 if i == 3 else value for i, value in enumerate(whole)])
    _, gradient, masked = loss(packed(sampler), rollout_mask=(0.99, 1.01), **kept)  # e^(-1/4) in the second rollout
    assert masked.tolist() == [True] * 4 + [False] * 2
    assert gradient == pytest.approx([*whole[:2], 0, 0, 0, 0])


def test_masks_and_a_truncated_ratio_go_together() -> None:
    sampler = [OLD[0] + math.log(2), OLD[1], OLD[2], OLD[3] + 1.0, OLD[4] - 5.0, OLD[5]]
    settings: dict[str, Any] = {"importance_cap": 3.0, "token_mask": (0.4, 1e6), "old_logprobs": "recompute"}
    plain, both = loss(packed(sampler), clip_high=3.0)[1], loss(packed(sampler), clip_high=3.0, **settings)[1]
    factors = [0.5, 1, 1, 0, 3, 1]
    assert both == pytest.approx([value * factor for value, factor in zip(plain, factors, strict=True)])
