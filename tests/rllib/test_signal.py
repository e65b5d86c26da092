"""The share of an update that is signal: by hand over AdamW's steps, and of noise with and without a mean."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from calibadv.rllib import signal
from calibadv.rllib.signal import NO_SIGNAL, Signal, last_signal


def stepped(
    gradients: Iterable[Tensor], *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 0.0
) -> list[Signal]:
    """The signal after each step along these gradients."""
    parameter = nn.Parameter(torch.zeros_like(next(iter(gradients))))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, betas=betas, eps=eps)
    found = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        found.append(last_signal(optimizer))
    return found


def test_products_are_with_the_mean_of_the_gradients_before() -> None:
    # beta2 1/2: unbiased second moments after two steps are (v1 + 2 v2) / 3, after three (v1 + 2 v2 + 4 v3) / 7.
    gradients = [torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0]), torch.tensor([3.0, 0.0])]
    first, second, third = stepped(gradients, betas=(0.5, 0.5))
    assert first == NO_SIGNAL  # nothing came before
    v = [(1 + 2) / 3, (4 + 2) / 3]
    assert second == pytest.approx((1 / v[0] - 2 / v[1], 1 / v[0] + 1 / v[1]), abs=1e-6)
    # The mean before: (1 g1 + 2 g2) / 3 = (1, 0), by beta1 1/2.
    v = [(1 + 2 + 4 * 9) / 7, (4 + 2) / 7]
    assert third == pytest.approx((3 / v[0], 9 / v[0]))


def test_parameters_without_a_gradient_and_optimizers_that_rested_have_none() -> None:
    still = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([still], lr=1e-3)
    assert last_signal(optimizer) == NO_SIGNAL
    optimizer.step()
    assert last_signal(optimizer) == NO_SIGNAL


def test_chunks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = [torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    whole = stepped(gradients)
    monkeypatch.setattr(signal, "CHUNK", 4)
    for one, other in zip(whole, stepped(gradients), strict=True):
        assert other == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_noise_has_no_share_and_a_mean_has_its_own(mean: float) -> None:
    noise = torch.Generator().manual_seed(0)
    found = stepped([mean + torch.randn(4000, generator=noise) for _ in range(60)], eps=1e-8)[20:]
    share = sum(one.common for one in found) / sum(one.own for one in found)
    assert share == pytest.approx(mean**2 / (1 + mean**2), abs=0.01)
