"""What tests of several methods ask of a credit."""

from __future__ import annotations

from random import Random

import numpy as np

from calibadv.methods import METHODS, Method
from calibadv.types import Credit, Group
from tests.build import group


def assert_grpo(credit: Credit, g: Group) -> None:
    """To the last bit the credit that GRPO gives the group."""
    for row, plain in zip(credit, METHODS["grpo"]().advantages(g), strict=True):
        np.testing.assert_array_equal(row, plain)


def assert_order_is_nothing(method: Method, g: Group, random: Random, atol: float = 1e-5) -> None:
    """Permuting the group permutes its credit."""
    order = list(range(len(g.trajectories)))
    random.shuffle(order)
    credit = method.advantages(g)
    permuted = method.advantages(group(*(g.trajectories[i] for i in order)))
    for row, i in zip(permuted, order, strict=True):
        np.testing.assert_allclose(row, credit[i], rtol=1e-5, atol=atol)
