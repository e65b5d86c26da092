"""Which learner trains which rollouts: as many tokens to compute for each of them, in every mini-batch.

In each update all learners wait for the one that has most of that mini-batch, so that even sums over the step are not
enough. What rollouts of a group begin with alike is computed once where they train together: to cut a group apart
makes its parts more even, and more to compute.

R rollouts, G of them in a group, U units that stay together, M mini-batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibadv.types import IntArray

Tokens = NDArray[np.float64]

WORTH_CUTTING = 1.01  # times what finer units have learners wait for: whole groups are sent to one learner only
SWAPPING_ROUNDS = 3  # over all units; further ones change little


def deal_rollouts(tokens_RM: Tokens, alike: Sequence[Tokens], learners: int) -> IntArray:
    """The learner of each rollout [R], from the tokens that it has in each of its mini-batches.

    `alike`: of each group, whose rollouts follow one another, how many tokens two of them begin with alike [G, G].
    Dealt are whole groups, those of a group that train in the same mini-batches, halves of those, and rollouts: of
    these dealings that by which learners wait least for the busiest, or the first that is as good within 1 %.
    """
    owners, waits = [], []
    units = _units(tokens_RM, [len(alike_GG) for alike_GG in alike])
    least = computed(tokens_RM, alike, units[0]).sum() / learners  # nobody can wait less: all groups whole, and even
    for unit_R in units:
        tokens_UM = loads(computed(tokens_RM, alike, unit_R), unit_R, int(unit_R.max(initial=-1)) + 1)
        owners.append(owner_R := deal(tokens_UM, learners)[unit_R])
        waits.append(float(loads(computed(tokens_RM, alike, owner_R), owner_R, learners).max(axis=0).sum()))
        if waits[-1] <= WORTH_CUTTING * least:
            break
    return next(owner_R for owner_R, wait in zip(owners, waits, strict=True) if wait <= WORTH_CUTTING * min(waits))


def _units(tokens_RM: Tokens, sizes: Sequence[int]) -> list[IntArray]:
    """The unit of each rollout, of fine and finer units."""
    group_R = np.repeat(np.arange(len(sizes)), sizes)
    _, together_R = np.unique(np.column_stack([group_R, tokens_RM > 0]), axis=0, return_inverse=True)
    together_R = together_R.reshape(-1)
    order_R = np.argsort(together_R, kind="stable")
    sizes_U = np.bincount(together_R)
    place_R = np.empty_like(together_R)  # of a rollout in its unit
    place_R[order_R] = np.arange(len(order_R)) - np.repeat(np.cumsum(sizes_U) - sizes_U, sizes_U)
    second_R = 2 * place_R >= sizes_U[together_R] + sizes_U[together_R] % 2
    _, half_R = np.unique(2 * together_R + second_R, return_inverse=True)
    return [group_R, together_R, half_R.reshape(-1), np.arange(len(tokens_RM))]


def computed(tokens_RM: Tokens, alike: Sequence[Tokens], part_R: IntArray) -> Tokens:
    """What is computed of each rollout's tokens where those of a group that are in the same part train together."""
    made_RM, start = tokens_RM.copy(), 0
    for alike_GG in alike:
        mine = slice(start, start := start + len(alike_GG))
        together_GG = np.tril(part_R[mine, None] == part_R[None, mine], -1)  # with those before it
        if together_GG.any():
            here_GM = tokens_RM[mine] > 0
            common_GM = ((alike_GG * together_GG)[:, :, None] * here_GM).max(axis=1)
            made_RM[mine] -= np.minimum(common_GM, tokens_RM[mine])
    return made_RM


def loads(tokens_RM: Tokens, owner_R: IntArray, owners: int) -> Tokens:
    """Tokens of each owner, a learner or a unit, in each mini-batch."""
    loads_LM = np.zeros((owners, tokens_RM.shape[1]))
    np.add.at(loads_LM, owner_R, tokens_RM)
    return loads_LM


def busiest(tokens_RM: Tokens, owner_R: IntArray, learners: int) -> float:
    """The largest load over the mean one, the mean over mini-batches; 1 without any token."""
    loads_LM = loads(tokens_RM, owner_R, learners)
    loads_LM = loads_LM[:, loads_LM.any(axis=0)]
    return float((loads_LM.max(axis=0) / loads_LM.mean(axis=0)).mean()) if loads_LM.size else 1.0


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
