"""Single numbers of tokens, advantages and queries, each a pure function.

Array legend: N action tokens of a trajectory, L tokens of a turn. None: undefined for what was given.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import numpy as np

from calibadv.types import FloatArray, Group, IntArray, Trajectory

HIGH_PPL = 50.0  # an output of higher perplexity counts as degenerate (CalibAdv sec. 4.3)
SCORE_BINS = (0.0, 1 / 3, 2 / 3, 1.0)  # what c can be with three documents a query
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a hash is lost by multiplying
_GRAM = 4
_MAX_NLL = 700.0  # exp of more overflows float64


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


def high_ppl_ratio(perplexities: Iterable[float | None]) -> float | None:
    """Share of outputs whose perplexity is above `HIGH_PPL`; None without outputs."""
    return mean(float(ppl > HIGH_PPL) for ppl in perplexities if ppl is not None)


def token_probability(logprobs_N: FloatArray) -> float | None:
    """Mean probability of the sampled tokens, in [0, 1]; None without tokens."""
    return float(np.exp(logprobs_N.astype(np.float64)).mean()) if logprobs_N.size else None


def repetition(ids_N: IntArray) -> float:
    """1 - distinct 4-grams / all 4-grams: 0 repeats nothing, near 1 is a loop; 0 for fewer than 4 tokens.

    4-grams are compared by a 64-bit hash: a step has millions of them.
    """
    grams = len(ids_N) - _GRAM + 1
    if grams < 1:
        return 0.0
    hashes = np.zeros(grams, dtype=np.uint64)
    for offset in range(_GRAM):
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
    return mean(float(fact) for advantage, fact in advantages_and_facts if advantage < 0)


def mean(values: Iterable[float]) -> float | None:
    """Their mean; None without any."""
    array = np.asarray(list(values), dtype=np.float64)
    return float(array.mean()) if array.size else None
