"""Which learner trains which rollouts: as many tokens for each of them, in every mini-batch.

In each update all learners wait for the one that has most of that mini-batch, so that even sums over the step are not
enough.

R rollouts, U units that stay together, M mini-batches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibadv.types import IntArray

Tokens = NDArray[np.float64]

EVEN = 1.01  # the busiest over the mean: above it groups are cut apart
SWAPPING_ROUNDS = 3  # over all units; further ones change little


def deal_rollouts(tokens_RM: Tokens, group_R: IntArray, learners: int, even: float = EVEN) -> IntArray:
    """The learner of each rollout [R], from its group and the tokens that it has in each of its mini-batches.

    What rollouts begin with alike is computed once where they train together: groups stay whole if then the busiest
    learner has at most `even` times the mean, else those rollouts of a group do that train in the same mini-batches,
    else none.
    """
    _, together_R = np.unique(np.column_stack([group_R, tokens_RM > 0]), axis=0, return_inverse=True)
    owner_R = np.zeros(len(tokens_RM), dtype=np.int64)
    for unit_R in (group_R, together_R.reshape(-1), np.arange(len(tokens_RM))):
        owner_R = _dealt(tokens_RM, unit_R, learners)
        if busiest(tokens_RM, owner_R, learners) <= even:
            break
    return owner_R


def busiest(tokens_RM: Tokens, owner_R: IntArray, learners: int) -> float:
    """The largest load over the mean one, the mean over mini-batches; 1 without any token."""
    loads_LM = np.zeros((learners, tokens_RM.shape[1]))
    np.add.at(loads_LM, owner_R, tokens_RM)
    loads_LM = loads_LM[:, loads_LM.any(axis=0)]
    return float((loads_LM.max(axis=0) / loads_LM.mean(axis=0)).mean()) if loads_LM.size else 1.0


def _dealt(tokens_RM: Tokens, unit_R: IntArray, learners: int) -> IntArray:
    tokens_UM = np.zeros((unit_R.max(initial=-1) + 1, tokens_RM.shape[1]))
    np.add.at(tokens_UM, unit_R, tokens_RM)
    return deal(tokens_UM, learners)[unit_R]


def deal(tokens_UM: Tokens, learners: int) -> IntArray:
    """The learner of each unit [U], from the tokens that it has in each mini-batch.

    Largest first, each to the learner whose mini-batches it fills least; then pairs are swapped while that makes the
    sum of squared loads smaller. For one mini-batch the first is Graham's rule of the longest processing time (1969).
    With one learner, or without units, there is nothing to choose. The same input gives the same answer.
    """
    owner_U = np.zeros(len(tokens_UM), dtype=np.int64)
    if learners == 1:
        return owner_U
    if (np.count_nonzero(tokens_UM, axis=1) > 1).any():
        return _together(tokens_UM, np.zeros(learners))
    # No unit has a part in two mini-batches, each of which is then dealt by itself: the same, and much less to compare.
    before_L = np.zeros(learners)
    for tokens_U in tokens_UM.T:
        (here_K,) = tokens_U.nonzero()
        owner_U[here_K] = _together(tokens_U[here_K, None], before_L)
        np.add.at(before_L, owner_U[here_K], tokens_U[here_K])
    return owner_U


def _together(tokens_UM: Tokens, before_L: Tokens) -> IntArray:
    """`deal` where learners have `before_L` tokens already: of equals, the emptiest is filled."""
    owner_U = np.zeros(len(tokens_UM), dtype=np.int64)
    loads_LM = np.zeros((len(before_L), tokens_UM.shape[1]))
    for u in np.argsort(-tokens_UM.sum(axis=1), kind="stable"):
        # The sum of squares grows by 2 load . tokens, and by what is the same for all.
        filled_L = loads_LM @ tokens_UM[u]
        owner_U[u] = learner = np.lexsort((before_L + loads_LM.sum(axis=1), filled_L))[0]
        loads_LM[learner] += tokens_UM[u]
    for _ in range(SWAPPING_ROUNDS):
        if not _swap(tokens_UM, owner_U, loads_LM):
            break
    return owner_U


def _swap(tokens_UM: Tokens, owner_U: IntArray, loads_LM: Tokens) -> bool:
    """Gives each unit the best of all swaps with a unit of another learner, in place; whether there was any."""
    swapped = False
    for u in range(len(owner_U)):
        own = int(owner_U[u])  # which an earlier swap may have changed
        gained_UM = tokens_UM - tokens_UM[u]  # what its learner gains by each swap, and the other loses
        change_U = (gained_UM * (loads_LM[own] - loads_LM[owner_U] + gained_UM)).sum(axis=1)
        change_U[owner_U == own] = 0.0
        other = int(change_U.argmin())
        if change_U[other] < -1e-6:  # tokens squared: less is rounding
            loads_LM[own] += gained_UM[other]
            loads_LM[owner_U[other]] -= gained_UM[other]
            owner_U[u], owner_U[other] = owner_U[other], own
            swapped = True
    return swapped
