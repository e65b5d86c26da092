"""Dense retrieval: FAISS inner products of the query with the documents' vectors; here over all of them, exactly.

Array legend: B queries, N documents, D embedding width, K results a query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from calibadv.search.encoder import TextEncoder
from calibadv.search.ordering import best_first
from calibadv.types import Document, FloatArray, IntArray

Nearest = Callable[[FloatArray, int], tuple[FloatArray, IntArray]]
"""(vectors_BD, k) -> (scores_BK, rows_BK); a row of -1 is no result."""


class Retriever(Protocol):
    """Queries in, at most `k` documents each, best first, with the retriever's score."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]: ...


class DenseIndex:
    """Cosine of query and document vectors. `nearest` is `flat(vectors_ND)` or one of `stored_index.py`."""

    def __init__(self, documents: Sequence[Document], encoder: TextEncoder, nearest: Nearest) -> None:
        self._documents = documents
        self._encoder = encoder
        self._nearest = nearest

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        """The `k` documents of highest inner product, each with it as `score`; fewer when the corpus is smaller."""
        if not queries:
            return []
        vectors_BD = self._encoder.encode_queries(queries).vectors
        scores_BK, rows_BK = self._nearest(vectors_BD, min(k, len(self._documents)))
        found = []
        for scores_K, rows_K in zip(scores_BK, rows_BK, strict=True):
            # By row first: FAISS breaks ties by where its heap had them.
            by_row = np.argsort(rows_K)
            order = by_row[best_first(scores_K[by_row], k)]
            found.append(
                [replace(self._documents[rows_K[i]], score=float(scores_K[i])) for i in order if rows_K[i] >= 0]
            )
        return found


def flat(vectors_ND: FloatArray, threads: int | None = None) -> Nearest:
    """Exhaustive search over vectors where they lie: memory-mapped rows are shared by processes and never copied."""
    import faiss

    if threads is not None:
        faiss.omp_set_num_threads(threads)

    def nearest(vectors_BD: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        scores_BK, rows_BK = faiss.knn(vectors_BD, vectors_ND, k, metric=faiss.METRIC_INNER_PRODUCT)
        return scores_BK, rows_BK

    return nearest
