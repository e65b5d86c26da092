"""Soft penalty: a negative advantage shrinks by the share of silver documents found (CalibAdv sec. 3.2, eq. 3-5).

G trajectories of a question, S intermediate steps of a trajectory (every turn but its last), N action tokens.
The switches of the released code (`reference`) are keyword arguments; the defaults are the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
from rapidfuzz.distance import Levenshtein

from calibadv.advantages.steps import step_slices
from calibadv.tags import think_text
from calibadv.types import Credit, FloatArray, Group, Trajectory, Turn, TurnKind

StepScores = list[FloatArray]
"""One row [S] a trajectory: the score c in [0, 1] of each intermediate step."""

SIMILAR_THINK = 0.5  # reference: a think above this edit similarity with an earlier one repeats it
SHARED_DOCUMENTS = 1  # reference: a step sharing more documents than this with one earlier step repeats it


def silver_documents(group: Group, *, correct_threshold: float = 0.7, best_tier_only: bool = False) -> frozenset[str]:
    """Ids of the documents that the group's `correct_rollouts` retrieved; empty if none is correct."""
    correct = correct_rollouts(group, correct_threshold=correct_threshold, best_tier_only=best_tier_only)
    return frozenset().union(*(group.trajectories[i].doc_ids for i in correct))


def correct_rollouts(group: Group, *, correct_threshold: float = 0.7, best_tier_only: bool = False) -> list[int]:
    """Indices of the rollouts of format reward 1 and answer reward >= `correct_threshold`.

    `best_tier_only` keeps those of the highest reward alone, ties merged (reference).
    """
    rewards = {
        i: t.reward
        for i, t in enumerate(group.trajectories)
        if t.format_reward == 1 and t.answer_reward >= correct_threshold
    }
    best = max(rewards.values(), default=0.0)
    return [i for i, reward in rewards.items() if reward == best or not best_tier_only]


def step_scores(
    group: Group,
    silver: Set[str],
    *,
    new_documents_only: bool = False,
    repeats_score_zero: bool = False,
    well_formed_only: bool = False,
) -> StepScores:
    """c = |distinct silver documents of the step| / |distinct documents of the step|; 0 where nothing was retrieved.

    A step that called other tools alone has no documents: its 0 leaves it the credit that it had.
    Reference switches: `new_documents_only`, a document seen earlier in the rollout is not silver again;
    `repeats_score_zero`, a step that repeats an earlier think or search gets 0; `well_formed_only`, rollouts of
    format reward 0 get no scores.
    """
    rows = []
    for trajectory in group.trajectories:
        scores = np.zeros(_num_steps(trajectory), dtype=np.float32)
        if not (well_formed_only and trajectory.format_reward != 1):
            for step in range(len(scores)):
                scores[step] = _step_score(trajectory.turns, step, silver, new_documents_only)
            if repeats_score_zero:
                scores[_repeating(trajectory.turns, scores.nonzero()[0].tolist())] = 0
        rows.append(scores)
    return rows


def soften_negative(credit: Credit, group: Group, scores: StepScores) -> Credit:
    """A(1 - c) on the tokens of intermediate steps whose advantage A is negative; all else as it was."""
    softened = []
    for row_N, scores_S, trajectory in zip(credit, scores, group.trajectories, strict=True):
        factor_N = np.ones(len(row_N), dtype=np.float32)
        for tokens, score in zip(step_slices(trajectory)[:-1], scores_S, strict=True):
            factor_N[tokens] = 1 - score
        softened.append(np.where(row_N < 0, row_N * factor_N, row_N))
    return softened


def uniform_scores(group: Group) -> StepScores:
    """The paper's control: every intermediate step gets c 0.5; 0 for a step that called other tools alone."""
    return [
        np.array([0.0 if turn.kind is TurnKind.CALL else 0.5 for turn in t.turns[:-1]], dtype=np.float32)
        for t in group.trajectories
    ]


def edit_similarity(first: Sequence[str], second: Sequence[str], least: float = 0.0) -> float:
    """1 - Levenshtein / max(number of words), in [0, 1]; 0 where it is below `least`, which is cheaper to find.

    Two texts without words: 0, nothing is repeated.
    """
    return Levenshtein.normalized_similarity(first, second, score_cutoff=least) if first or second else 0.0


def _num_steps(trajectory: Trajectory) -> int:
    return max(len(trajectory.turns) - 1, 0)


def _step_score(turns: Sequence[Turn], step: int, silver: Set[str], new_documents_only: bool) -> float:
    found = set(turns[step].doc_ids)
    if not found:
        return 0.0
    counted = found & silver
    if new_documents_only:
        counted -= {doc for turn in turns[:step] for doc in turn.doc_ids}
    return len(counted) / len(found)


def _repeating(turns: Sequence[Turn], asked: Sequence[int]) -> list[int]:
    """Those of the steps `asked` that repeat the think or the search of an earlier one."""
    found = [set(turn.doc_ids) for turn in turns]
    words: dict[int, list[str]] = {}  # of a step's think: to split a long one takes longer than to compare two

    def words_of(step: int) -> list[str]:
        if step not in words:
            words[step] = think_text(turns[step].text).split()
        return words[step]

    def repeats(step: int) -> bool:
        return any(len(found[step] & found[earlier]) > SHARED_DOCUMENTS for earlier in range(step)) or any(
            edit_similarity(words_of(step), words_of(earlier), SIMILAR_THINK) > SIMILAR_THINK for earlier in range(step)
        )

    return [step for step in asked if repeats(step)]
