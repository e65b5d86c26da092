"""Which groups train (`method.keep`): all, or those that have any credit, or those of the user's function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from calibadv.methods.method import Method
from calibadv.nearest import did_you_mean
from calibadv.types import Credit, Group
from calibadv.user_code import called_here, load, names_code

KEEPS = ("all", "credited")


def with_keep(method: Method, keep: str) -> Method:
    """The method with `keep` in place of its own. "all" leaves it as it is.

    "credited" drops groups of which no token has an advantage: for GRPO and its kin those of equal rewards. ValueError
    for another name, and where the two do not go together.
    """
    if keep == "all":
        return method
    if method.keep is not None:
        raise ValueError(
            f"method.keep = {keep!r}, and method {method.name!r} chooses its groups itself: leave it at 'all'"
        )
    if names_code(keep):
        if not callable(function := load(keep, "method.keep")):
            raise ValueError(f"method.keep = {keep!r} is no function: it is {function!r}")
        return replace(method, keep=partial(called_here, function))
    if keep not in KEEPS:
        raise ValueError(
            f"method.keep = {keep!r} is not known{did_you_mean(keep, KEEPS)}; expected one of {', '.join(KEEPS)}, or a "
            "function as file.py:name or package.module:name"
        )
    if method.critic is not None:
        raise ValueError(
            f"method.keep = 'credited', and the advantages of method {method.name!r} come from a critic, which learns "
            "of equal rewards too: leave it at 'all'"
        )
    return replace(method, keep=lambda group: any(row_N.any() for row_N in method.advantages(group)))


def kept_groups(groups: Sequence[Group], method: Method) -> list[Group]:
    """The groups that train, in their order."""
    return [group for group in groups if method.keep is None or method.keep(group)]


def no_credit(group: Group) -> Credit:
    """What a group that was dropped was trained on: 0 at every token. One row [N] a trajectory."""
    return [np.zeros(trajectory.num_actions, dtype=np.float32) for trajectory in group.trajectories]
