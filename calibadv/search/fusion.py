"""Hybrid retrieval: several rankings fused by ranks alone, so that BM25's scores and cosines need no common scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import fsum

from calibadv.search.index import Retriever
from calibadv.types import Document

RRF_K = 60  # Cormack, Clarke & Buettcher 2009 ("Reciprocal Rank Fusion outperforms Condorcet"), section 2
FUSED_DEPTH = 100  # of each ranking: a document that one retriever ranks first and the other 80th is still seen by both


class HybridRetriever:
    """The fusion of what its retrievers find, each asked for at least `depth` documents; `score` is the fused one."""

    def __init__(self, retrievers: Sequence[Retriever], depth: int = FUSED_DEPTH) -> None:
        self._retrievers = retrievers
        self._depth = depth

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        """At most `k` documents a query, best first. One that any retriever finds counts, also if others find none."""
        if not queries:
            return []
        found = [retriever.search(queries, max(k, self._depth)) for retriever in self._retrievers]
        return [self._fuse(rankings)[:k] for rankings in zip(*found, strict=True)]

    def _fuse(self, rankings: Sequence[Sequence[Document]]) -> list[Document]:
        documents = {document.id: document for ranking in rankings for document in ranking}
        fused = reciprocal_rank_fusion([[document.id for document in ranking] for ranking in rankings])
        return [replace(documents[doc_id], score=score) for doc_id, score in fused]


def reciprocal_rank_fusion(rankings: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """(id, score) of every ranked id, best first: the sum of 1 / (60 + rank) over the rankings with it, from rank 1.

    Ties go to the id that an earlier ranking names first. No ranking, or only empty ones, give an empty list. Source:
    Cormack, Clarke & Buettcher 2009, section 2.
    """
    shares: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, doc_id in enumerate(ranking, start=1):
            shares.setdefault(doc_id, []).append(1.0 / (RRF_K + rank))
    # Sorting is stable and a dict keeps the order of first mention; fsum does not depend on the order of rankings.
    return sorted(((doc_id, fsum(parts)) for doc_id, parts in shares.items()), key=lambda pair: -pair[1])
