"""First exposure: within a rollout, credit moves to the searches that first retrieved what correct rollouts retrieved.

A = A_O * f_s on search s, A_O elsewhere;   f_s = 1 - beta + beta * S * share_s, whose mean over the S searches is 1
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibadv.advantages.group import Baseline, outcome_credit
from calibadv.advantages.silver import silver_documents
from calibadv.advantages.turns import TurnValues, spread
from calibadv.methods.grpo import grpo
from calibadv.methods.method import Method
from calibadv.methods.reasons import Explanation, Term, outcome_reasons
from calibadv.types import Credit, FloatArray, Group, Trajectory, TurnKind


def first_exposure(*, beta: float = 0.5, correct_threshold: float = 0.7, baseline: Baseline = "grpo") -> Method:
    """Credit for the first retrieval of evidence, after STAMP (2026, arXiv 2607.11172), which we know by its abstract.

    The formula is ours. Evidence: silver documents, those that the group's correct rollouts retrieved. Of a rollout
    above the mean a search has the share of the evidence that it was the first to show; of one below it, the share of
    the others, so that it is blamed least where it showed most. No sign changes, and the mean over a rollout's searches
    stays A_O. Rollouts without evidence, or with one search, stay as GRPO has them. `baseline` as for `grpo`.
    ValueError for `beta` outside [0, 1]; 0 is GRPO.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta is {beta}, expected a share in [0, 1] (0: GRPO)")

    def factors(group: Group) -> TurnValues:
        silver = silver_documents(group, correct_threshold=correct_threshold)
        mean = float(np.mean([t.reward for t in group.trajectories]))
        return [exposure_factors(t, silver, beta, blamed=t.reward < mean) for t in group.trajectories]

    def advantages(group: Group) -> Credit:
        pairs = zip(outcome_credit(group, baseline), spread(factors(group), group), strict=True)
        return [row_N * factor_N for row_N, factor_N in pairs]

    def explain(group: Group) -> Explanation:
        return [
            [reasons.times(Term("f", float(factor), "share of the evidence first shown")) for reasons, factor in pairs]
            for pairs in map(zip, outcome_reasons(group, baseline=baseline), factors(group))
        ]

    return replace(grpo(baseline=baseline), name="first_exposure", advantages=advantages, explain=explain)


def exposure_factors(trajectory: Trajectory, silver: frozenset[str], beta: float, *, blamed: bool) -> FloatArray:
    """f of each turn, 1 where nothing moves. Shape [S of all turns].

    Searches are the intermediate ones; a document that several show is the first one's.
    """
    factors_S = np.ones(len(trajectory.turns), dtype=np.float32)
    searches = [s for s, turn in enumerate(trajectory.turns[:-1]) if turn.kind is TurnKind.SEARCH]
    seen: set[str] = set()
    shown = []
    for s in searches:
        new = set(trajectory.turns[s].doc_ids) & silver - seen
        shown.append(len(new))
        seen |= new
    if len(searches) < 2 or not seen:
        return factors_S
    shares = np.array(shown, dtype=np.float64) / len(seen)
    if blamed:
        shares = (1 - shares) / (len(searches) - 1)
    factors_S[searches] = 1 - beta + beta * len(searches) * shares
    return factors_S
