"""Size, recall and speed of the FAISS indexes, on a real corpus's vectors and on larger sets made from them."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibadv.search.faiss_index import add_rows, build_parameters, opened, search_in, trained_index
from calibadv.search.index import flat
from calibadv.search.settings import KINDS, SearchConfig
from calibadv.types import FloatArray, IntArray

log = logging.getLogger(__name__)

HEAD = ("passages", "index", "MB", "bytes a passage", "recall@20 of exact", "gold recall@20", "build s", "ms a query")
K = 20


def index_rows(
    vectors_ND: FloatArray,
    queries_BD: FloatArray,
    gold_rows: Sequence[Sequence[int]],
    sizes: Sequence[int],
    noise: float,
    config: SearchConfig,
) -> list[list[str | int | float]]:
    """A row of `HEAD` for each size and kind. `gold_rows[b]` are the corpus rows of query b's gold passages.

    "of exact" is the share of the 20 nearest by exact search that the index finds; "gold" the share of gold passages
    among its 20. A query's time is of one query at a time.
    """
    import faiss

    if config.threads is not None:
        faiss.omp_set_num_threads(config.threads)
    rows: list[list[str | int | float]] = []
    for size in sizes:
        enlarged_ND = enlarged(vectors_ND, size, noise)
        _, exact_BK = flat(enlarged_ND, config.threads)(queries_BD, K)
        for kind in KINDS:
            rows.append([size, kind, *_measured(config.but(index=kind), enlarged_ND, queries_BD, exact_BK, gold_rows)])
            log.info("%d passages, %s: %s", size, kind, rows[-1][2:])
    return rows


def enlarged(vectors_ND: FloatArray, size: int, noise: float) -> FloatArray:
    """`size` unit vectors [size, D]: the real ones, then copies of them in turn, each moved and made of length 1 again.

    A copy is moved by Gaussian noise of length about `noise`: its cosine with the real one is about
    1 / sqrt(1 + noise^2). Such passages crowd around the real ones, as no real corpus does: recall is that of a hard
    case, and gold passages are pushed out of the first 20 by their own copies. Fewer than N are the first real ones.
    """
    if size < 1 or noise < 0:
        raise ValueError(f"size = {size}, noise = {noise}; expected at least 1 and 0")
    random = np.random.default_rng(0)
    real, dim = vectors_ND.shape
    result_ND = np.empty((size, dim), dtype=np.float32)
    result_ND[:real] = vectors_ND[:size]
    for first in range(real, size, real):
        count = min(real, size - first)
        moved_ND = vectors_ND[:count] + random.normal(0, noise / np.sqrt(dim), (count, dim)).astype(np.float32)
        result_ND[first : first + count] = moved_ND / np.linalg.norm(moved_ND, axis=1, keepdims=True)
    return result_ND


def recall_of(found_BK: IntArray, wanted: Sequence[Sequence[int]] | IntArray) -> float:
    """Mean over queries of the share of wanted rows that were found, in [0, 1]. A query that wants none is left out."""
    shares = [
        len(set(found) & set(rows)) / len(rows)
        for found, rows in zip(found_BK.tolist(), [list(rows) for rows in wanted], strict=True)
        if rows
    ]
    return float(np.mean(shares))


def _measured(
    config: SearchConfig,
    vectors_ND: FloatArray,
    queries_BD: FloatArray,
    exact_BK: IntArray,
    gold_rows: Sequence[Sequence[int]],
) -> list[int | float]:
    import faiss

    begun_s = time.perf_counter()
    index = trained_index(config.index, vectors_ND, build_parameters(config, *vectors_ND.shape))
    add_rows(index, vectors_ND)
    build_s = time.perf_counter() - begun_s
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.faiss"
        faiss.write_index(index, str(path))
        size_bytes = path.stat().st_size
        nearest = search_in(opened(path, config), config)
        nearest(queries_BD[:1], K)
        begun_s = time.perf_counter()
        found_BK = np.concatenate([nearest(query_1D, K)[1] for query_1D in np.split(queries_BD, len(queries_BD))])
        query_ms = 1000 * (time.perf_counter() - begun_s) / len(queries_BD)
    return [
        round(size_bytes / 1e6, 1),
        round(size_bytes / len(vectors_ND)),
        recall_of(found_BK, exact_BK),
        recall_of(found_BK, gold_rows),
        round(build_s, 1),
        round(query_ms, 2),
    ]
