"""Corrections between learner and engine, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from calibadv.correction import importance_weights, rollout_mask, sum_by_row, token_mask

ZEROS = torch.zeros(4)


def engine(*ratios: float) -> torch.Tensor:
    """The sampler's log-probs under which π_old / π_sampler is `ratios`, where the learner's are 0."""
    return -torch.tensor(ratios).log()


def test_importance_weights_are_capped_ratios() -> None:
    weights = importance_weights(torch.zeros(2), engine(0.5, 8.0), cap=2.0)
    assert weights.tolist() == pytest.approx([0.5, 2.0])


def test_tokens_outside_the_bounds_are_masked() -> None:
    assert token_mask(ZEROS, engine(0.4, 0.6, 1.9, 2.1), (0.5, 2.0)).tolist() == [False, True, True, False]


def test_equal_log_probs_are_inside_any_bounds() -> None:
    assert token_mask(ZEROS, ZEROS, (1.0, 1.0)).all()
    assert rollout_mask(ZEROS, ZEROS, torch.tensor([0, 0, 1, 1]), (1.0, 1.0)).all()


def test_a_rollout_is_judged_by_its_geometric_mean() -> None:
    # sqrt(0.5 * 2) = 1, though both tokens are far; sqrt(1 * 1.1) = 1.049.
    rows = torch.tensor([0, 0, 1, 1])
    assert rollout_mask(ZEROS, engine(0.5, 2.0, 1.0, 1.1), rows, (0.99, 1.01)).tolist() == [True, True, False, False]
    assert rollout_mask(ZEROS, engine(0.5, 2.0, 1.0, 1.1), rows, (0.95, 1.05)).all()


def test_one_impossible_token_leaves_no_nan() -> None:
    of_one = torch.tensor([0, 0, 0, 0])
    far = torch.tensor([0.0, 0.0, 0.0, -1e9])
    assert not rollout_mask(ZEROS, far, of_one, (0.99, 1.01)).any()
    assert math.isfinite(float(importance_weights(ZEROS, far, 2.0).sum()))


def test_a_sum_by_row_stands_at_each_of_its_tokens() -> None:
    assert sum_by_row(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 0, 1])).tolist() == [5, 2, 5]
    assert sum_by_row(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).tolist() == []
