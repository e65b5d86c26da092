"""One search: retrieve, rerank, cut, remember. CalibAdv retrieves 20 passages and keeps the best 3 after reranking."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from cachetools import LRUCache

from calibadv.search.index import Retriever
from calibadv.search.rerank import Reranker
from calibadv.search.settings import SearchConfig
from calibadv.types import Document

Ranked = tuple[Document, ...]
_Key = tuple[str, int, int, bool]


class SearchPipeline:
    """Ranked documents for queries. Thread-safe: calls are answered one after the other."""

    def __init__(self, retriever: Retriever, reranker: Reranker, config: SearchConfig) -> None:
        self._retriever = retriever
        self._reranker = reranker
        self._config = config
        self._answers: LRUCache[_Key, Ranked] = LRUCache(config.cache_size)
        self._lock = Lock()

    def search_batch(
        self,
        queries: Sequence[str],
        top_k: int | None = None,
        top_k_retrieve: int | None = None,
        retrieval_order: bool = False,
    ) -> list[Ranked]:
        """At most `top_k` documents a query, in the queries' order, best first, scored by the reranker.

        `retrieval_order` keeps the chosen documents in the retriever's order. A query over `max_query_chars` is cut,
        not refused. An empty query finds whatever the retriever gives for it (BM25: nothing). Raises `ValueError` for
        too many queries and as `check_top_k` does; an equal query of this or an earlier call is answered from memory.
        """
        self._config.check_count(len(queries))
        top_k, top_k_retrieve = self.check_top_k(top_k, top_k_retrieve)
        keys: list[_Key] = [(self._config.cut(query), top_k_retrieve, top_k, retrieval_order) for query in queries]
        with self._lock:
            answers = {key: self._answers[key] for key in keys if key in self._answers}
            new = [key for key in dict.fromkeys(keys) if key not in answers]
            if new:
                found = self._search([query for query, *_ in new], top_k_retrieve, top_k, retrieval_order)
                fresh = dict(zip(new, found, strict=True))
                answers |= fresh
                if self._config.cache_size:  # an LRUCache without room refuses what is put in
                    self._answers.update(fresh)
        return [answers[key] for key in keys]

    def check_top_k(self, top_k: int | None, top_k_retrieve: int | None) -> tuple[int, int]:
        """(top_k, top_k_retrieve) of a call; what it left out is the settings', or what its `top_k` needs.

        Raises `ValueError` unless 1 <= top_k <= top_k_retrieve <= max_top_k.
        """
        top_k = self._config.top_k if top_k is None else top_k
        top_k_retrieve = max(self._config.top_k_retrieve, top_k) if top_k_retrieve is None else top_k_retrieve
        self._config.check_top_k(top_k_retrieve, top_k)
        return top_k, top_k_retrieve

    def _search(self, queries: list[str], top_k_retrieve: int, top_k: int, retrieval_order: bool) -> list[Ranked]:
        candidates = self._retriever.search(queries, top_k_retrieve)
        ranked = [documents[:top_k] for documents in self._reranker.rerank(queries, candidates)]
        if retrieval_order:
            for documents, retrieved in zip(ranked, candidates, strict=True):
                place = {document.id: rank for rank, document in enumerate(retrieved)}
                documents.sort(key=lambda document: place[document.id])
        return [tuple(documents) for documents in ranked]
