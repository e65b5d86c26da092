"""What a step's sums come to where they hardly differ from nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from calibadv.advantages.gae import gae
from calibadv.rllib.totals import UpdateTotals, step_metrics


@pytest.mark.parametrize("same", [True, False])
def test_explained_variance_is_absent_where_returns_do_not_vary(same: bool) -> None:
    totals, rng, zeros_N = UpdateTotals(), np.random.default_rng(0), torch.zeros(200)
    for rollout in range(8):
        values_N = (0.3 + 0.1 * rng.standard_normal(200)).astype(np.float32)
        rewards_N = np.zeros(200, dtype=np.float32)
        rewards_N[-1] = 2 / 3 if same or rollout % 2 else 0.67  # a variance of 3e-6 is one
        returns_N = torch.tensor(gae(rewards_N, values_N) + values_N)
        batch = {"returns_N": returns_N, "sampler_logprobs_N": zeros_N, "targets_N": zeros_N.long()}
        out = {"logprobs_N": zeros_N, "entropy_N": zeros_N, "values_N": torch.tensor(values_N)}
        totals.add_tokens(batch, out, fresh=True)
    assert ("critic/explained_variance" in step_metrics([totals.as_dict()])) is not same
