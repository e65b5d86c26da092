"""How well passages are found: recall at k and reciprocal rank against a question's gold passages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean


def recall_at(ranked: Sequence[str], gold: Collection[str], k: int) -> float:
    """Share of the gold passages that are among the first k ranked, in [0, 1]. `ValueError` without gold passages."""
    _check(gold)
    return len(set(ranked[:k]) & set(gold)) / len(set(gold))


def reciprocal_rank(ranked: Sequence[str], gold: Collection[str]) -> float:
    """1 / rank of the first gold passage, rank from 1; 0 when none is ranked. `ValueError` without gold passages."""
    _check(gold)
    return next((1 / rank for rank, doc_id in enumerate(ranked, start=1) if doc_id in gold), 0.0)


def ranking_quality(
    rankings: Sequence[Sequence[str]], golds: Sequence[Collection[str]], cuts: Sequence[int]
) -> tuple[dict[int, float], float]:
    """(recall at each cut, mean reciprocal rank), each the mean over questions. `ValueError` for no question."""
    if not rankings:
        raise ValueError("0 questions; expected at least 1 with gold passages")
    pairs = list(zip(rankings, golds, strict=True))
    recalls = {k: fmean(recall_at(ranked, gold, k) for ranked, gold in pairs) for k in cuts}
    return recalls, fmean(reciprocal_rank(ranked, gold) for ranked, gold in pairs)


def _check(gold: Collection[str]) -> None:
    if not gold:
        raise ValueError("the question has no gold passages; expected at least 1: leave it out")
