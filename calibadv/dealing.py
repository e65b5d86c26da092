"""Which learner trains which groups: as many tokens for each of them, in every mini-batch.

A group goes to one learner whole, since its credit is assigned there, while its rollouts lie in mini-batches that were
drawn over the whole step. In each update all learners wait for the one that has most of that mini-batch, so that even
sums over the step are not enough.

G groups, M mini-batches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibadv.types import IntArray

Tokens = NDArray[np.float64]

SWAPPING_ROUNDS = 3  # over all groups; further ones change little


def deal(tokens_GM: Tokens, learners: int) -> IntArray:
    """The learner of each group [G], from the tokens that the group has in each mini-batch.

    Largest first, each to the learner whose mini-batches it fills least; then pairs are swapped while that makes the
    sum of squared loads smaller. For one mini-batch the first is Graham's rule of the longest processing time (1969).
    With one learner, or without groups, there is nothing to choose. The same input gives the same answer.
    """
    owner_G = np.zeros(len(tokens_GM), dtype=np.int64)
    if learners == 1:
        return owner_G
    loads_LM = np.zeros((learners, tokens_GM.shape[1]))
    for g in np.argsort(-tokens_GM.sum(axis=1), kind="stable"):
        # The sum of squares grows by 2 load . tokens, and by what is the same for all. The emptiest of equals.
        filled_L = loads_LM @ tokens_GM[g]
        owner_G[g] = learner = np.lexsort((loads_LM.sum(axis=1), filled_L))[0]
        loads_LM[learner] += tokens_GM[g]
    for _ in range(SWAPPING_ROUNDS):
        if not _swap(tokens_GM, owner_G, loads_LM):
            break
    return owner_G


def _swap(tokens_GM: Tokens, owner_G: IntArray, loads_LM: Tokens) -> bool:
    """Gives each group the best of all swaps with a group of another learner, in place; whether there was any."""
    swapped = False
    for g, own in enumerate(owner_G.tolist()):
        gained_GM = tokens_GM - tokens_GM[g]  # what its learner gains by each swap, and the other loses
        change_G = (gained_GM * (loads_LM[own] - loads_LM[owner_G] + gained_GM)).sum(axis=1)
        change_G[owner_G == own] = 0.0
        other = int(change_G.argmin())
        if change_G[other] < -1e-6:  # tokens squared: less is rounding
            loads_LM[own] += gained_GM[other]
            loads_LM[owner_G[other]] -= gained_GM[other]
            owner_G[g], owner_G[other] = owner_G[other], own
            swapped = True
    return swapped
