"""Which tokens a nucleus keeps."""

from __future__ import annotations

import pytest
import torch

from calibadv.rollout.nucleus import nucleus

PROBS = torch.tensor([[0.1, 0.5, 0.15, 0.25]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1e-9, [1]),
        (0.5, [1]),
        (0.51, [1, 3]),
        (0.75, [1, 3]),
        (0.8, [1, 2, 3]),
        (0.95, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_the_fewest_most_likely_tokens_with_so_much_probability_stay(top_p: float, kept: list[int]) -> None:
    expected = torch.zeros_like(PROBS)
    expected[0, kept] = PROBS[0, kept]
    assert torch.equal(nucleus(PROBS, torch.tensor([[top_p]], dtype=torch.float64)), expected)


def test_rows_have_their_own_and_one_is_everything_to_the_bit() -> None:
    probs = torch.rand(2, 100, dtype=torch.float64).softmax(-1)
    found = nucleus(probs, torch.tensor([[1.0], [0.5]], dtype=torch.float64))
    assert torch.equal(found[0], probs[0])
    assert 0.5 <= float(found[1].sum()) < 0.53
