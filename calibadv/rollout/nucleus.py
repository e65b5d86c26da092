"""Nucleus sampling (Holtzman et al. 2020): the tail of a distribution is never sampled.

B rows, V vocabulary.
"""

from __future__ import annotations

import torch


def nucleus(probs_BV: torch.Tensor, top_p_B1: torch.Tensor) -> torch.Tensor:
    """The probabilities of the fewest most likely tokens that have `top_p` together, the others' 0. Not renormalised.

    The most likely token always stays. Rows of `top_p` 1 stay as they are to the bit.
    """
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(-1) - sorted_BV
    kept_BV = (before_BV < top_p_B1) | (top_p_B1 >= 1)
    kept_BV[:, 0] = True
    return probs_BV * torch.zeros_like(kept_BV).scatter(-1, order_BV, kept_BV)
