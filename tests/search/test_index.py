"""Ranks do not depend on noise or batch; the top-k of pieces is as good as the top-k of the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.search.index import BLAS_FROM, best_first, flat, in_pieces, loaded_faiss, merge_top_k
from calibadv.types import FloatArray, IntArray


def test_two_pieces_by_hand() -> None:
    scores = [np.array([[0.9, 0.1]], dtype=np.float32), np.array([[0.5, 0.4]], dtype=np.float32)]
    merged, rows = merge_top_k(scores, [np.array([[3, 1]]), np.array([[7, 9]])], 3)
    assert rows.tolist() == [[3, 7, 9]]
    np.testing.assert_allclose(merged, [[0.9, 0.5, 0.4]], rtol=1e-6)


def test_a_tie_goes_to_the_lower_row_and_noise_is_a_tie() -> None:
    scores = [np.array([[0.5]], dtype=np.float32), np.array([[0.5000001]], dtype=np.float32)]
    assert merge_top_k(scores, [np.array([[2]]), np.array([[5]])], 1)[1].tolist() == [[2]]


def test_what_no_piece_found_is_no_result() -> None:
    # FAISS fills with row -1 and the lowest float.
    scores = [np.array([[0.2, -3.4e38]], dtype=np.float32), np.array([[-3.4e38]], dtype=np.float32)]
    merged, rows = merge_top_k(scores, [np.array([[4, -1]]), np.array([[-1]])], 3)
    assert rows.tolist() == [[4, -1, -1]]
    assert merged[0, 1:].tolist() == [-np.inf, -np.inf]
    with pytest.raises(ValueError, match="0 pieces"):
        merge_top_k([], [], 3)


def exact(values: FloatArray) -> object:
    def nearest(vectors_BD: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        order = np.lexsort((np.arange(len(values)), -values))[:k]
        return np.tile(values[order], (len(vectors_BD), 1)), np.tile(order, (len(vectors_BD), 1))

    return nearest


@given(
    values=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    k=st.integers(1, 30),
)
def test_any_cut_into_pieces_finds_what_the_whole_finds(values: list[int], cuts: list[int], k: int) -> None:
    scores = np.array(values, dtype=np.float32)
    k = min(k, len(scores))
    bounds = sorted({0, len(scores), *(cut for cut in cuts if cut < len(scores))})
    pieces = [(a, b - a, exact(scores[a:b])) for a, b in pairwise(bounds)]
    queries = np.zeros((2, 1), dtype=np.float32)
    found, rows = in_pieces(pieces)(queries, k)  # type: ignore[arg-type]
    whole, whole_rows = exact(scores)(queries, k)  # type: ignore[operator]
    np.testing.assert_array_equal(rows, whole_rows)
    np.testing.assert_array_equal(found, whole)


def test_best_first_ranks_high_to_low_and_ties_by_row() -> None:
    assert best_first(np.array([0.1, 0.9, 0.5, 0.9]), 3).tolist() == [1, 3, 2]


def test_float_noise_is_a_tie() -> None:
    assert best_first(np.array([0.5, 0.5 + 1e-7]), 2).tolist() == [0, 1]


@given(st.lists(st.integers(-5, 5), max_size=60), st.integers(1, 8))
def test_best_first_equals_a_full_stable_sort(scores: list[int], k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]
    assert best_first(np.array(scores, dtype=np.float32), k).tolist() == expected


def test_many_queries_at_once_find_what_each_finds_alone() -> None:
    """From `BLAS_FROM` queries on FAISS multiplies matrices, where its wheel would go vector by vector."""
    draw = np.random.default_rng(0)
    vectors_ND, queries_BD = (draw.standard_normal((n, 16), dtype=np.float32) for n in (500, 2 * BLAS_FROM))
    nearest = flat(vectors_ND, threads=1)
    assert loaded_faiss(None).cvar.distance_compute_blas_threshold == BLAS_FROM
    scores_BK, rows_BK = nearest(queries_BD, 3)
    for query_D, scores_K, rows_K in zip(queries_BD, scores_BK, rows_BK, strict=True):
        (alone_K,), (alone_rows_K,) = nearest(query_D[None], 3)
        np.testing.assert_allclose(scores_K, alone_K, atol=1e-5)
        np.testing.assert_array_equal(rows_K, alone_rows_K)
        np.testing.assert_array_equal(rows_K, np.argsort(-(vectors_ND @ query_D))[:3])
