"""What one training step tells about the policy and its credit: every metric of CalibAdv that a single run can give.

Array legend: N action tokens of a trajectory, L tokens of a turn, S intermediate steps.
Words: a *step* is a turn; the last turn of a rollout is its final step, those before are *intermediate*; a *query* is
a SEARCH turn; c in [0, 1] is a query's silver score. A number that is undefined is None here and absent from metrics.
Rollouts that the environment failed (`infra_failed`) are counted and otherwise left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from calibadv.rewards.answer import best_over_golden, exact_match
from calibadv.types import Credit, FloatArray, Group, IntArray, Trajectory, TurnKind

HIGH_PPL = 50.0  # an output of higher perplexity counts as degenerate (CalibAdv sec. 4.3)
SCORE_BINS = (0.0, 1 / 3, 2 / 3, 1.0)  # what c can be with three documents a query
_BIN_NAMES = ("0", "0.33", "0.67", "1")
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a hash is lost by multiplying
_MAX_NLL = 700.0  # exp of more overflows float64

Scores = Sequence[Sequence[float]] | Sequence[FloatArray]
"""c of one group: a row [S] a trajectory, a number an intermediate step, as `silver.step_scores` returns it."""


def neg_pos_ratio(rows: Iterable[FloatArray]) -> float | None:
    """|sum of negative advantages| / sum of positive ones, over tokens; None without a positive one."""
    negative = positive = 0.0
    for row_N in rows:
        negative -= float(np.minimum(row_N, 0.0).sum(dtype=np.float64))
        positive += float(np.maximum(row_N, 0.0).sum(dtype=np.float64))
    return negative / positive if positive > 0 else None


def perplexity(logprobs_N: FloatArray) -> float | None:
    """exp of the mean negative log-likelihood (nats) of the sampled tokens; None without tokens."""
    if logprobs_N.size == 0:
        return None
    return float(np.exp(min(-float(logprobs_N.mean(dtype=np.float64)), _MAX_NLL)))


def high_ppl_ratio(perplexities: Iterable[float | None], threshold: float = HIGH_PPL) -> float | None:
    """Share of outputs whose perplexity is above `threshold`; None without outputs."""
    return _mean(float(ppl > threshold) for ppl in perplexities if ppl is not None)


def token_probability(logprobs_N: FloatArray) -> float | None:
    """Mean probability of the sampled tokens, in [0, 1]; None without tokens."""
    return float(np.exp(logprobs_N.astype(np.float64)).mean()) if logprobs_N.size else None


def repetition(ids_N: IntArray, n: int = 4) -> float:
    """1 - distinct n-grams / all n-grams: 0 repeats nothing, near 1 is a loop; 0 for fewer than n tokens.

    N-grams are compared by a 64-bit hash: a step has millions of them.
    """
    grams = len(ids_N) - n + 1
    if grams < 1:
        return 0.0
    hashes = np.zeros(grams, dtype=np.uint64)
    for offset in range(n):
        hashes = hashes * _HASH_FACTOR + ids_N[offset : offset + grams].astype(np.uint64) + np.uint64(1)
    return 1.0 - len(np.unique(hashes)) / grams


def token_budget(groups: Iterable[Group]) -> tuple[int, int]:
    """Action tokens that were sampled, and those that a trajectory took over from a shared prefix.

    A turn is taken over where its `node` (>= 0) stands in an earlier trajectory of the group; chains reuse nothing.
    Rollouts that the environment failed count too: their tokens were paid for.
    """
    sampled = reused = 0
    for group in groups:
        seen: set[int] = set()
        for turn in (turn for trajectory in group.trajectories for turn in trajectory.turns):
            if turn.node >= 0 and turn.node in seen:
                reused += len(turn.action_ids)
            else:
                sampled += len(turn.action_ids)
            seen.add(turn.node)
    return sampled, reused


def score_distribution(scores: Iterable[float]) -> tuple[float, ...] | None:
    """Share of query scores nearest to each of `SCORE_BINS`; None without scores."""
    values = np.asarray(list(scores), dtype=np.float64)
    if values.size == 0:
        return None
    nearest = np.abs(values[:, None] - np.asarray(SCORE_BINS)).argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(SCORE_BINS)) / values.size
    return tuple(float(share) for share in shares)


def turn_rows(trajectory: Trajectory, row_N: FloatArray) -> list[FloatArray]:
    """A trajectory's row [N] cut into one row [L] a turn."""
    if len(row_N) != trajectory.num_actions:
        raise ValueError(f"a credit row must have {trajectory.num_actions} entries (action tokens), got {len(row_N)}")
    if not trajectory.turns:
        return []
    return list(np.split(row_N, np.cumsum([len(turn.action_ids) for turn in trajectory.turns])[:-1]))


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


def all_silver(documents: AbstractSet[str], silver: AbstractSet[str]) -> bool:
    """Whether a query found documents, each of them silver: *likely correct* in the paper (sec. 3.1, figure 2)."""
    return bool(documents) and documents <= silver


def some_silver(documents: AbstractSet[str], silver: AbstractSet[str]) -> bool:
    """Whether a query found a silver document at all."""
    return not documents.isdisjoint(silver)


def penalised_share(advantages_and_facts: Iterable[tuple[float, bool]]) -> float | None:
    """Share of penalised intermediate queries (advantage < 0) of which a fact is true.

    Of `all_silver` the paper reports 43.97 % for Qwen2.5-7B under plain GRPO, so pass the advantages before
    calibration. None when nothing is penalised.
    """
    return _mean(float(fact) for advantage, fact in advantages_and_facts if advantage < 0)


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
        "reward/em": _mean(
            best_over_golden(g.trajectories[i].answer, g.question.golden_answers, exact_match, g.question.tokens)
            for (g, *_), i in sound
        ),
        "rollout/tokens_sampled": float(sampled) if groups else None,
        "rollout/tokens_reused": float(reused) if groups else None,
        "rollout/infra_failed": _mean(float(t.infra_failed) for g in groups for t in g.trajectories),
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
        "advantage/zero_share": _mean(float(not any(np.any(row) for row in credit)) for credit in credits_after),
        "silver/empty_share": _mean(float(not documents) for documents in silver),
        "silver/size": _mean(float(len(documents)) for documents in silver if documents),
        "silver/score_mean": _mean(q.score for q in queries),
        "silver/softened_share": _mean(float(q.softened) for q in queries),
        **{f"silver/score_bin_{name}": share for name, share in zip(_BIN_NAMES, shares, strict=False)},
    }
    return {name: value for name, value in everything.items() if value is not None and np.isfinite(value)}


def reward_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """Mean reward, F1 and format, and the parts of a reward that has some; exact match is in `group_metrics`."""
    parts = sorted({name for t in trajectories for name in t.reward_parts})
    return {
        **{
            f"reward/part_{name}": _mean(t.reward_parts[name] for t in trajectories if name in t.reward_parts)
            for name in parts
        },
        "reward/mean": _mean(t.reward for t in trajectories),
        "reward/f1": _mean(t.answer_reward for t in trajectories),
        "reward/format": _mean(t.format_reward for t in trajectories),
    }


def rollout_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """Lengths, valid searches, ends that are not an answer, repetition, and how sure the sampling policy was."""
    logprobs = [np.concatenate([np.empty(0, np.float32), *(u.logprobs for u in t.turns)]) for t in trajectories]
    tokens = [np.concatenate([np.empty(0, np.int64), *(u.action_ids for u in t.turns)]) for t in trajectories]
    logprobs_all = np.concatenate([np.empty(0, np.float32), *logprobs])
    return {
        "rollout/searches": _mean(float(sum(u.kind is TurnKind.SEARCH for u in t.turns)) for t in trajectories),
        "rollout/tokens": _mean(float(t.num_tokens) for t in trajectories),
        "rollout/action_tokens": _mean(float(t.num_actions) for t in trajectories),
        "rollout/truncated": _mean(float(t.truncated) for t in trajectories),
        "rollout/forced_final": _mean(float(t.forced_final) for t in trajectories),
        "rollout/void": _mean(float(any(u.kind is TurnKind.VOID for u in t.turns)) for t in trajectories),
        "rollout/answered": _mean(float(t.answer is not None) for t in trajectories),
        "rollout/repetition": _mean(repetition(ids) for ids in tokens),
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
        metrics[f"tool/{tool}_tokens"] = _mean(tokens for _, tokens in own)
        metrics[f"time/tool_{tool}_s"] = _mean(seconds for seconds, _ in own)
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


def _mean(values: Iterable[float]) -> float | None:
    array = np.asarray(list(values), dtype=np.float64)
    return float(array.mean()) if array.size else None
