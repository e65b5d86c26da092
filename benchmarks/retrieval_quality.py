"""Recall and reciprocal rank of every retriever with every reranker, on questions that name their gold passages."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean

from calibadv.search.build import build_pipeline
from calibadv.search.encoder import Encoder, TextEncoder
from calibadv.search.settings import SearchConfig
from calibadv.types import Document, Question

log = logging.getLogger(__name__)

CUTS = (1, 3, 5, 20)
HEAD = ("retriever", "reranker", *(f"recall@{k}" for k in CUTS), "MRR")


def quality_rows(
    questions: Sequence[Question],
    documents: Sequence[Document],
    config: SearchConfig,
    retrievers: Sequence[str],
    rerankers: Sequence[str],
    cache_dir: Path,
    encoder: TextEncoder | None = None,
) -> list[list[str | float]]:
    """A row of `HEAD` for each retriever with each reranker, which reorders the first `top_k_retrieve`.

    The query is the question as it stands: a multi-hop question's later passages are hard to find with it, whatever
    the retriever. Raises `ValueError` when no question has gold passages; those without are left out, and said.
    """
    asked = [question for question in questions if question.gold_doc_ids]
    if len(asked) < len(questions):
        log.warning("%d questions have no gold passages and are left out", len(questions) - len(asked))
    if not asked:
        raise ValueError(f"none of {len(questions)} questions has gold passages: use a data set that has them")
    if encoder is None and (set(retrievers) != {"bm25"} or "late" in rerankers):
        encoder = Encoder(config)
    depth = max(config.top_k_retrieve, *CUTS)
    rows: list[list[str | float]] = []
    for retriever in retrievers:
        for reranker in rerankers:
            chosen = config.but(
                retriever=retriever,
                reranker=reranker,
                top_k_retrieve=depth,
                top_k=depth,
                max_queries=len(asked),
                max_top_k=depth,
            )
            pipeline = build_pipeline(documents, chosen, cache_dir, encoder=encoder)
            found = pipeline.search_batch([question.text for question in asked])
            rankings = [[document.id for document in ranked] for ranked in found]
            recalls, mrr = ranking_quality(rankings, [question.gold_doc_ids for question in asked], CUTS)
            rows.append([retriever, reranker, *(recalls[k] for k in CUTS), mrr])
            log.info("%s, %s: recall@5 %.3f", retriever, reranker, recalls[5])
    return rows


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
