"""The terms of the loss by hand: what a token that weighs nothing takes part in."""

from __future__ import annotations

import math

import pytest
import torch

from calibadv.config import LearnerConfig
from calibadv.methods.grpo import grpo
from calibadv.rllib.objective import Divisors, loss_terms


def terms(weights: list[float], divisors: Divisors) -> dict[str, float]:
    """Of four tokens whose log-probs are 0 and whose reference's are 0, 1, 2 and 3; entropies 1, 2, 3 and 4."""
    zeros, count = torch.zeros(4), torch.arange(4.0)
    batch = {"old_logprobs_N": zeros, "weights_N": torch.tensor(weights), "advantages_N": zeros}
    out = {"logprobs_N": zeros, "reference_logprobs_N": count, "entropy_N": count + 1}
    settings = LearnerConfig(kl_coef=0.1, entropy_coef=0.01)
    return {name: float(term) for name, term in loss_terms(batch, out, divisors, settings, grpo()).items()}


def test_kl_and_entropy_leave_out_what_weighs_nothing() -> None:
    # SimpleTIR's void rollouts: tokens 1 and 3. KL e^d - d - 1 of d = 0 and 2; entropies 1 and 3; two tokens are kept.
    found = terms([1, 0, 1, 0], Divisors(tokens=2, kept=2, actions=4, extra=0))
    assert found["kl"] == pytest.approx(0.1 * (math.exp(2) - 3) / 2)
    assert found["entropy"] == pytest.approx(-0.01 * (1 + 3) / 2)


def test_a_weight_between_counts_as_a_whole_token_there() -> None:
    found = terms([0.5, 0.5, 1, 1], Divisors(tokens=3, kept=4, actions=4, extra=0))
    assert found["entropy"] == pytest.approx(-0.01 * 10 / 4)


def test_nothing_kept_is_no_loss() -> None:
    assert set(terms([0, 0, 0, 0], Divisors(tokens=0, kept=0, actions=4, extra=0)).values()) == {0.0}
