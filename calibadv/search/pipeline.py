"""One search: retrieve, rerank, cut, remember. CalibAdv retrieves 20 passages and keeps the best 3 after reranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from calibadv.search.index import Retriever
from calibadv.search.limits import SearchLimits
from calibadv.search.lru import LeastRecentlyUsed
from calibadv.search.rerank import Reranker
from calibadv.types import Document

Ranked = tuple[Document, ...]
_Key = tuple[str, int, int, bool]


@dataclass(frozen=True, slots=True)
class SearchCounts:
    """What a pipeline has served since it was built. `searched + cache_hits + repeats == queries`."""

    queries: int = 0
    searched: int = 0  # went to the retriever
    cache_hits: int = 0  # answered by an earlier call
    repeats: int = 0  # answered by an equal query of the same call
    cut: int = 0  # were over `max_query_chars`


class SearchPipeline:
    """Ranked documents for queries. Thread-safe: calls are answered one after the other."""

    def __init__(
        self,
        retriever: Retriever,
        reranker: Reranker,
        *,
        top_k_retrieve: int = 20,
        top_k: int = 3,
        limits: SearchLimits | None = None,
        cache_size: int = 10_000,
    ) -> None:
        self.limits = limits or SearchLimits()
        self.limits.check_top_k(top_k_retrieve, top_k)
        self.top_k_retrieve = top_k_retrieve
        self.top_k = top_k
        self._retriever = retriever
        self._reranker = reranker
        self._cache: LeastRecentlyUsed[_Key, Ranked] = LeastRecentlyUsed(cache_size)
        self._counts = SearchCounts()
        self._lock = Lock()

    @property
    def counts(self) -> SearchCounts:
        """A snapshot."""
        return self._counts

    def search_batch(
        self,
        queries: Sequence[str],
        top_k: int | None = None,
        top_k_retrieve: int | None = None,
        retrieval_order: bool = False,
    ) -> list[Ranked]:
        """At most `top_k` documents a query, in the queries' order, best first, scored by the reranker.

        `retrieval_order` keeps the chosen documents in the retriever's order. A query over `limits.max_query_chars` is
        cut, not refused. An empty query finds whatever the retriever gives for it (BM25: nothing). Raises `ValueError`
        for too many queries and for a top-k outside 1 <= top_k <= top_k_retrieve <= limits.max_top_k; when only
        `top_k` is given, more than `self.top_k_retrieve` are retrieved if it asks for more.
        """
        self.limits.check_count(len(queries))
        top_k, top_k_retrieve = self.check_top_k(top_k, top_k_retrieve)
        keys: list[_Key] = [(self.limits.cut(query), top_k_retrieve, top_k, retrieval_order) for query in queries]
        with self._lock:
            answers: dict[_Key, Ranked] = {}
            for key in dict.fromkeys(keys):
                if (remembered := self._cache.get(key)) is not None:
                    answers[key] = remembered
            new = [key for key in dict.fromkeys(keys) if key not in answers]
            if new:
                found = self._search([key[0] for key in new], top_k_retrieve, top_k, retrieval_order)
                for key, documents in zip(new, found, strict=True):
                    answers[key] = documents
                    self._cache.put(key, documents)
            self._count(queries, unique=len(answers), searched=len(new))
        return [answers[key] for key in keys]

    def check_top_k(self, top_k: int | None, top_k_retrieve: int | None) -> tuple[int, int]:
        """(top_k, top_k_retrieve) of a call with what it left out filled in. Raises `ValueError` as `search_batch`."""
        top_k = self.top_k if top_k is None else top_k
        top_k_retrieve = max(self.top_k_retrieve, top_k) if top_k_retrieve is None else top_k_retrieve
        self.limits.check_top_k(top_k_retrieve, top_k)
        return top_k, top_k_retrieve

    def _search(self, queries: list[str], top_k_retrieve: int, top_k: int, retrieval_order: bool) -> list[Ranked]:
        candidates = self._retriever.search(queries, top_k_retrieve)
        ranked = [documents[:top_k] for documents in self._reranker.rerank(queries, candidates)]
        if retrieval_order:
            for documents, retrieved in zip(ranked, candidates, strict=True):
                place = {document.id: rank for rank, document in enumerate(retrieved)}
                documents.sort(key=lambda document: place[document.id])
        return [tuple(documents) for documents in ranked]

    def _count(self, queries: Sequence[str], unique: int, searched: int) -> None:
        old = self._counts
        self._counts = SearchCounts(
            queries=old.queries + len(queries),
            searched=old.searched + searched,
            cache_hits=old.cache_hits + unique - searched,
            repeats=old.repeats + len(queries) - unique,
            cut=old.cut + sum(len(query) > self.limits.max_query_chars for query in queries),
        )
