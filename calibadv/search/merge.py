"""One top-k from the top-k of several pieces of an index: what makes a sharded index answer as a whole one does.

Array legend: B queries, K results a query; -1 in `rows` is no result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibadv.search.index import Nearest
from calibadv.search.ordering import SCORE_DECIMALS
from calibadv.types import FloatArray, IntArray


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
