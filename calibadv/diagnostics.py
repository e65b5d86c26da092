"""What one training step tells about the policy and its credit: every metric of CalibAdv that a single run can give.

Array legend: N action tokens of a trajectory, L tokens of a turn, S intermediate steps.
Words: a *step* is a turn; the last turn of a rollout is its final step, those before are *intermediate*; a *query* is
a SEARCH turn; c in [0, 1] is a query's silver score. A number that is undefined is None here and absent from metrics.
Rollouts that the environment failed (`infra_failed`) are counted and otherwise left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from calibadv.measures import (
    all_silver,
    high_ppl_ratio,
    mean,
    neg_pos_ratio,
    penalised_share,
    perplexity,
    repetition,
    score_distribution,
    some_silver,
    token_budget,
    token_probability,
    turn_rows,
)
from calibadv.rewards.answer import best_over_golden, exact_match
from calibadv.types import Credit, FloatArray, Group, Trajectory, TurnKind

_BIN_NAMES = ("0", "0.33", "0.67", "1")

Scores = Sequence[Sequence[float]] | Sequence[FloatArray]
"""c of one group: a row [S] a trajectory, a number an intermediate step, as `silver.step_scores` returns it."""


@dataclass(frozen=True, slots=True)
class _Query:
    """An intermediate query with its advantage, averaged over the turn's tokens, before and after calibration."""

    before: float
    after: float
    score: float
    documents: frozenset[str]
    silver: AbstractSet[str]  # of its group

    @property
    def softened(self) -> bool:
        """Whether the soft penalty acted: A < 0 became A(1 - c), c > 0. Credit of another making is not softened."""
        expected = self.before * (1 - self.score)
        return self.before < 0 < self.score and math.isclose(self.after, expected, rel_tol=1e-4, abs_tol=1e-6)


def group_metrics(
    groups: Sequence[Group],
    credits_before: Sequence[Credit],
    credits_after: Sequence[Credit],
    scores: Sequence[Scores],
    silver: Sequence[AbstractSet[str]],
) -> dict[str, float]:
    """Metrics of one step's groups, by path; before/after: credit without and with calibration, a row a trajectory.

    Credit may differ from token to token: masses are sums over tokens, a query's advantage the mean over its tokens.
    Means of rewards, lengths and searches are over rollouts; of silver scores and `silver/softened_share` over
    intermediate queries; `silver/size` over groups whose set is not empty; `advantage/zero_share` over groups.
    """
    sound = [
        (group, i)
        for group in zip(groups, credits_before, credits_after, scores, strict=True)
        for i, trajectory in enumerate(group[0].trajectories)
        if not trajectory.infra_failed
    ]
    trajectories = [group.trajectories[i] for (group, *_), i in sound]
    before = [rows[i] for (_, rows, _, _), i in sound]
    after = [rows[i] for (_, _, rows, _), i in sound]
    silver_of = {id(group): documents for group, documents in zip(groups, silver, strict=True)}
    queries = list(
        _intermediate_queries(
            trajectories,
            before,
            after,
            [rows[i] for (_, _, _, rows), i in sound],
            [silver_of[id(group)] for (group, *_), _ in sound],
        )
    )
    shares = score_distribution(q.score for q in queries) or ()
    sampled, reused = token_budget(groups)
    everything: dict[str, float | None] = {
        **reward_metrics(trajectories),
        **rollout_metrics(trajectories),
        **tool_metrics(trajectories),
        "reward/em": mean(
            best_over_golden(g.trajectories[i].answer, g.question.golden_answers, exact_match, g.question.tokens)
            for (g, *_), i in sound
        ),
        "rollout/tokens_sampled": float(sampled) if groups else None,
        "rollout/tokens_reused": float(reused) if groups else None,
        "rollout/infra_failed": mean(float(t.infra_failed) for g in groups for t in g.trajectories),
        "advantage/neg_pos_ratio": neg_pos_ratio(after),
        "advantage/neg_pos_ratio_before": neg_pos_ratio(before),
        "advantage/neg_pos_ratio_final": neg_pos_ratio(
            turn_rows(t, row_N)[-1] for t, row_N in zip(trajectories, after, strict=True) if t.turns
        ),
        "advantage/penalised_all_silver": penalised_share(
            (q.before, all_silver(q.documents, q.silver)) for q in queries
        ),
        "advantage/penalised_some_silver": penalised_share(
            (q.before, some_silver(q.documents, q.silver)) for q in queries
        ),
        "advantage/zero_share": mean(float(not any(np.any(row) for row in credit)) for credit in credits_after),
        "silver/empty_share": mean(float(not documents) for documents in silver),
        "silver/size": mean(float(len(documents)) for documents in silver if documents),
        "silver/score_mean": mean(q.score for q in queries),
        "silver/softened_share": mean(float(q.softened) for q in queries),
        **{f"silver/score_bin_{name}": share for name, share in zip(_BIN_NAMES, shares, strict=False)},
    }
    return {name: value for name, value in everything.items() if value is not None and np.isfinite(value)}


def reward_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """Mean reward, F1 and format, and the parts of a reward that has some; exact match is in `group_metrics`."""
    parts = sorted({name for t in trajectories for name in t.reward_parts})
    return {
        **{
            f"reward/part_{name}": mean(t.reward_parts[name] for t in trajectories if name in t.reward_parts)
            for name in parts
        },
        "reward/mean": mean(t.reward for t in trajectories),
        "reward/f1": mean(t.answer_reward for t in trajectories),
        "reward/format": mean(t.format_reward for t in trajectories),
    }


def rollout_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """Lengths, valid searches, ends that are not an answer, repetition, and how sure the sampling policy was."""
    logprobs = [np.concatenate([np.empty(0, np.float32), *(u.logprobs for u in t.turns)]) for t in trajectories]
    tokens = [np.concatenate([np.empty(0, np.int64), *(u.action_ids for u in t.turns)]) for t in trajectories]
    logprobs_all = np.concatenate([np.empty(0, np.float32), *logprobs])
    return {
        "rollout/searches": mean(float(sum(u.kind is TurnKind.SEARCH for u in t.turns)) for t in trajectories),
        "rollout/tokens": mean(float(t.num_tokens) for t in trajectories),
        "rollout/action_tokens": mean(float(t.num_actions) for t in trajectories),
        "rollout/truncated": mean(float(t.truncated) for t in trajectories),
        "rollout/forced_final": mean(float(t.forced_final) for t in trajectories),
        "rollout/void": mean(float(any(u.kind is TurnKind.VOID for u in t.turns)) for t in trajectories),
        "rollout/answered": mean(float(t.answer is not None) for t in trajectories),
        "rollout/repetition": mean(repetition(ids) for ids in tokens),
        "rollout/high_ppl_ratio": high_ppl_ratio(perplexity(row) for row in logprobs),
        "policy/token_probability": token_probability(logprobs_all),
        "policy/ppl": perplexity(logprobs_all),
    }


def tool_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """By tool, the search among them: calls a rollout, and tokens of the context and seconds that one call took.

    Calls of one turn share what the policy reads behind it evenly: exact where there is one. Calls that failed are in
    no rollout; see `tool/<name>_failed`.
    """
    calls = [
        (call, len(turn.observation_ids) / turn.calls) for t in trajectories for turn in t.turns for call in turn.called
    ]
    metrics: dict[str, float | None] = {}
    for tool in sorted({call.tool for call, _ in calls}):
        own = [(call.seconds, tokens) for call, tokens in calls if call.tool == tool]
        metrics[f"tool/{tool}_calls"] = len(own) / len(trajectories)
        metrics[f"tool/{tool}_tokens"] = mean(tokens for _, tokens in own)
        metrics[f"time/tool_{tool}_s"] = mean(seconds for seconds, _ in own)
    return metrics


def _intermediate_queries(
    trajectories: Sequence[Trajectory],
    before: Sequence[FloatArray],
    after: Sequence[FloatArray],
    scores: Sequence[Sequence[float] | FloatArray],
    silver: Sequence[AbstractSet[str]],
) -> Iterator[_Query]:
    for trajectory, before_N, after_N, scores_S, known in zip(trajectories, before, after, scores, silver, strict=True):
        rows_before, rows_after = turn_rows(trajectory, before_N), turn_rows(trajectory, after_N)
        steps = zip(trajectory.turns[:-1], rows_before[:-1], rows_after[:-1], scores_S, strict=True)
        for turn, before_L, after_L, score in steps:
            if turn.kind is TurnKind.SEARCH and len(turn.action_ids):
                documents = frozenset(turn.doc_ids)
                yield _Query(float(before_L.mean()), float(after_L.mean()), float(score), documents, known)
