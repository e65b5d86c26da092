"""Dense retrieval: inner products of queries with documents' vectors, ranked the same every time, whole or in pieces.

Array legend: B queries, N documents or scored rows, D embedding width, K results a query; -1 in `rows` is no result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibadv.search.encoder import TextEncoder
from calibadv.types import Document, FloatArray, IntArray

Nearest = Callable[[FloatArray, int], tuple[FloatArray, IntArray]]
"""(vectors_BD, k) -> (scores_BK, rows_BK); a row of -1 is no result."""


BLAS_FROM = 4  # queries
SCORE_DECIMALS = 5
"""A text's embedding moves by about 1e-7 with the batch it is encoded in: scores this close are a tie."""


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
    faiss = loaded_faiss(threads)

    def nearest(vectors_BD: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        scores_BK, rows_BK = faiss.knn(vectors_BD, vectors_ND, k, metric=faiss.METRIC_INNER_PRODUCT)
        return scores_BK, rows_BK

    return nearest


def loaded_faiss(threads: int | None) -> Any:
    """FAISS, with so many threads in this process (None leaves them), and matrix products for batches of queries.

    Its wheel multiplies vector by vector below 128,000 queries. From four on a product is faster: ten times with 32
    queries over 100,000 vectors, nine times where IVF-PQ trains on 10,000.
    """
    import faiss

    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    return faiss


def best_first(scores_N: NDArray[np.floating], k: int) -> IntArray:
    """Rows of the k highest scores, best first; among ties (to 5 decimals) the lower row first. Shape [min(k, N)]."""
    rounded_N = np.round(np.asarray(scores_N, dtype=np.float64), SCORE_DECIMALS)
    rows = np.arange(len(rounded_N))
    if len(rounded_N) > 4 * k > 0:
        # Sorting millions of rows for twenty is the cost of the search: keep those that reach the k-th score.
        rows = np.flatnonzero(rounded_N >= np.partition(rounded_N, -k)[-k])
    order = np.lexsort((rows, -rounded_N[rows]))
    best: IntArray = rows[order[:k]].astype(np.int64)
    return best


def merge_top_k(scores: Sequence[FloatArray], rows: Sequence[IntArray], k: int) -> tuple[FloatArray, IntArray]:
    """(scores_BK, rows_BK) of the k best of all pieces, best first; ties (to 5 decimals) to the lower row.

    `scores[p]` and `rows[p]` are what piece p found, shape [B, K_p], rows numbered over the whole corpus, each in one
    piece only. Places that no piece can fill hold row -1 and score -inf. Raises `ValueError` when there is no piece.
    """
    if not rows:
        raise ValueError("an index of 0 pieces cannot be searched; expected at least 1: build the index again")
    rows_BA = np.concatenate(rows, axis=1)
    scores_BA = np.where(rows_BA >= 0, np.concatenate(scores, axis=1), -np.inf).astype(np.float32)
    rounded_BA = np.round(scores_BA.astype(np.float64), SCORE_DECIMALS)
    order_BK = np.lexsort((rows_BA, -rounded_BA), axis=-1)[:, :k]
    merged_scores_BK: FloatArray = np.take_along_axis(scores_BA, order_BK, axis=1)
    merged_rows_BK: IntArray = np.take_along_axis(rows_BA, order_BK, axis=1)
    return merged_scores_BK, merged_rows_BK


def in_pieces(pieces: Sequence[tuple[int, int, Nearest]]) -> Nearest:
    """Search in every piece (its first row in the corpus, how many rows it has, its own search), merged."""

    def nearest(vectors_BD: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        scores, rows = [], []
        for first, length, search in pieces:
            scores_BK, own_BK = search(vectors_BD, min(k, length))
            scores.append(scores_BK)
            rows.append(np.where(own_BK >= 0, own_BK + first, -1))
        return merge_top_k(scores, rows, k)

    return nearest
