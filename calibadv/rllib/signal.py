"""How much of a mini-batch's gradient is signal, and how much changes with the mini-batch: from AdamW's own moments.

The gradient's product with the mean of those before it has |E g|² as its expectation if the policy hardly moves
meanwhile and mini-batches are independent; its product with itself has E |g|². Both under the scale that AdamW gives
the step, of gradients as they were clipped. What is not so: a group's rollouts in several mini-batches make it too
small, since their advantages sum to 0; a second pass over the same rollouts too large; steps that overshoot negative.
The idea of a noise scale: McCandlish et al. 2018.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

CHUNK = 2**22  # elements at a time: a vocabulary's embedding would need several copies of itself


class Signal(NamedTuple):
    """Two products of an update's scaled gradient; their sums over updates make the share: `common / own`."""

    common: float = 0.0  # with the mean of the gradients before, below 0 by chance where they have nothing in common
    own: float = 0.0  # with itself


NO_SIGNAL = Signal()


@torch.no_grad()
def last_signal(optimizer: torch.optim.Optimizer) -> Signal:
    """Of the step that `optimizer`, an AdamW, has just made, its gradients still there. Nothing for its first step."""
    products: list[torch.Tensor] = []
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if parameter.grad is None or "exp_avg" not in state or (steps := float(state["step"])) < 2:
                continue
            parts = (
                tensor.reshape(-1).split(CHUNK) for tensor in (parameter.grad, state["exp_avg"], state["exp_avg_sq"])
            )
            for gradient, first, second in zip(*parts, strict=True):
                scaled = gradient / (second / (1 - beta2**steps)).sqrt_().add_(group["eps"]).square_()
                own = scaled @ gradient
                # `first` has this gradient in it as well.
                before = (scaled @ first - (1 - beta1) * own) / (beta1 * (1 - beta1 ** (steps - 1)))
                products.append(torch.stack([before, own]))
    if not products:
        return NO_SIGNAL
    common, own = torch.stack(products).double().sum(0).tolist()
    return Signal(common, own)
