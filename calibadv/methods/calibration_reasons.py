"""CalibAdv's reasons: GRPO's, times 1 - c where a search's blame is softened, times lam * N / P at a right answer.

Both factors are read off the credit before and after that stage: they are what was done. S turns of a trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose

from calibadv.advantages.group import Baseline, outcome_credit
from calibadv.advantages.rebalance import final_tokens, masses, tokens_at
from calibadv.advantages.silver import StepScores
from calibadv.methods.reasons import Explanation, Term, outcome_reasons, turn_means
from calibadv.types import Credit, Group


def calibration_reasons(
    group: Group,
    softened: Credit,
    calibrated: Credit,
    penalty: Sequence[Sequence[str]] | None,
    *,
    lam: float,
    every_step: bool,
    baseline: Baseline = "grpo",
) -> Explanation:
    """The reasons of `calibrated`, which is `softened` rebalanced, which is GRPO's credit softened.

    `penalty` has a row [S - 1] a trajectory: where each intermediate step's c comes from; None: nothing is softened.
    `every_step`: rebalanced at each step index, not at the answers alone.
    """
    stages = [turn_means(credit, group) for credit in (outcome_credit(group, baseline), softened, calibrated)]
    balanced = _masses_words(softened, group, lam, every_step)
    rows = []
    for i, reasons_S in enumerate(outcome_reasons(group, baseline=baseline)):
        row = []
        for s, reasons in enumerate(reasons_S):
            before, soft, after = (stage[i][s] for stage in stages)
            if penalty is not None and s < len(reasons_S) - 1 and before < 0:
                reasons = reasons.times(Term("1 - c", abs(soft / before), penalty[i][s]))
            if soft and after != soft:
                reasons = reasons.times(Term("λ N / P", after / soft, balanced[s if every_step else 0]))
            row.append(reasons)
        rows.append(row)
    return rows


def silver_words(
    group: Group, correct: Sequence[int], scores: StepScores, *, well_formed_only: bool = False
) -> list[list[str]]:
    """How many documents of each intermediate step the `correct` rollouts found, and which did. Rows [S - 1].

    Where its c is less than that share, by a switch of the released code, why.
    """
    found_by = {i: group.trajectories[i].doc_ids for i in correct}
    silver = frozenset().union(*found_by.values())
    rows = []
    for trajectory, scores_S in zip(group.trajectories, scores, strict=True):
        row, seen = [], set[str]()
        for turn, score in zip(trajectory.turns[:-1], scores_S, strict=True):
            documents = set(turn.doc_ids)
            shared = documents & silver
            by = [str(i + 1) for i, theirs in found_by.items() if shared & theirs]
            of = f"{len(shared)} of {len(documents)} documents silver" if documents else "nothing was retrieved"
            words = [of] + ([f"by correct rollout {', '.join(by)}"] if by else [])
            if documents and not isclose(score, len(shared) / len(documents), abs_tol=1e-6):
                if well_formed_only and trajectory.format_reward != 1:
                    words.append("but the rollout is not well-formed")
                elif isclose(score, len(shared - seen) / len(documents), abs_tol=1e-6):
                    words.append(f"{len(shared & seen)} of them seen before")
                else:
                    words.append("but it repeats an earlier step")
            row.append(", ".join(words))
            seen |= documents
        rows.append(row)
    return rows


def _masses_words(softened: Credit, group: Group, lam: float, every_step: bool) -> list[str]:
    """Where the ratio comes from: of each step index, or of the answers alone."""
    where = {"at the answers": final_tokens(group)}
    if every_step:
        where = {f"at turn {s + 1}": tokens_at(group, s) for s in range(max(len(t.turns) for t in group.trajectories))}
    words = []
    for place, tokens in where.items():
        positive, negative = masses(softened, tokens)
        words.append(f"λ {lam:g}; {place} N {negative:.2f} and P {positive:.2f} over tokens")
    return words
