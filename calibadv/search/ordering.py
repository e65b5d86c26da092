"""Best first, and the same order every time: ties and float noise never decide a rank.

Array legend: N scored rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibadv.types import IntArray

SCORE_DECIMALS = 5
"""A text's embedding moves by about 1e-7 with the batch it is encoded in: scores this close are a tie."""


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
