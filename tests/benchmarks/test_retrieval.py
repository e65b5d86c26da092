"""Recall and reciprocal rank by hand; the benchmark's tables, larger vector sets and callers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks.retrieval_indexes import HEAD as INDEX_HEAD
from benchmarks.retrieval_indexes import enlarged, index_rows, recall_of
from benchmarks.retrieval_load import measure
from benchmarks.retrieval_quality import HEAD, quality_rows, ranking_quality, recall_at, reciprocal_rank
from calibadv.search.client import SearchCall
from calibadv.search.settings import SearchConfig
from calibadv.tables import markdown_rows
from calibadv.types import Document, Question
from tests.search.fakes import CORPUS, WordEncoder
from tests.search.test_faiss_index import unit_vectors


def test_recall_and_reciprocal_rank_by_hand() -> None:
    ranked, gold = ["a", "b", "c", "d"], ("d", "b", "x")
    assert [recall_at(ranked, gold, k) for k in (1, 2, 4)] == [0, 1 / 3, 2 / 3]
    assert reciprocal_rank(ranked, gold) == 1 / 2
    assert reciprocal_rank(ranked, ("x",)) == reciprocal_rank([], ("x",)) == 0
    recalls, mrr = ranking_quality([ranked, ["x"]], [gold, ("x",)], (1, 4))
    assert recalls == pytest.approx({1: 1 / 2, 4: 5 / 6})
    assert mrr == 3 / 4
    with pytest.raises(ValueError, match="no gold passages"):
        recall_at(ranked, (), 1)
    with pytest.raises(ValueError, match="0 questions"):
        ranking_quality([], [], (1,))


def test_a_row_for_each_retriever_with_each_reranker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    questions = [
        Question("t/1", "capital of France", ("Paris",), gold_doc_ids=("d0",)),
        Question("t/2", "harbour Norway", ("Oslo",), gold_doc_ids=("d4", "gone")),
        Question("t/3", "unanswerable", ("?",)),
    ]
    rows = quality_rows(
        questions, CORPUS, SearchConfig(), ["bm25", "hybrid"], ["none", "late"], tmp_path, WordEncoder()
    )
    assert [row[:2] for row in rows] == [["bm25", "none"], ["bm25", "late"], ["hybrid", "none"], ["hybrid", "late"]]
    # Both gold passages that there are come first; the third is in no corpus.
    assert all(row[2:] == [0.75, 0.75, 0.75, 0.75, 1.0] for row in rows)
    assert len(rows[0]) == len(HEAD)
    assert "1 questions have no gold passages" in caplog.text
    with pytest.raises(ValueError, match="none of 1 questions has gold passages"):
        quality_rows(questions[2:], CORPUS, SearchConfig(), ["bm25"], ["none"], tmp_path)


def test_markdown_has_a_line_a_row() -> None:
    assert (
        markdown_rows(("a", "b"), [["x", 0.5], ["y", 20_000]])
        == "| a | b |\n| --- | ---: |\n| x | 0.500 |\n| y | 20,000 |\n"
    )
    with pytest.raises(ValueError, match="2 columns passed, passed data had 1"):
        markdown_rows(("a", "b"), [["x"]])


def test_a_larger_set_keeps_the_real_vectors_and_moves_their_copies_as_said() -> None:
    real = unit_vectors(50, dim=256, seed=3)
    larger = enlarged(real, 120, noise=0.5)
    np.testing.assert_array_equal(larger[:50], real)
    np.testing.assert_allclose(np.linalg.norm(larger, axis=1), 1, rtol=1e-5)
    cosines = (larger[50:100] * real).sum(axis=1)
    assert np.mean(cosines) == pytest.approx(1 / np.sqrt(1.25), abs=0.02)
    assert not np.allclose(larger[100:], larger[50:70])  # each copy is another one
    np.testing.assert_array_equal(enlarged(real, 120, noise=0.5), larger)
    np.testing.assert_array_equal(enlarged(real, 20, noise=0.5), real[:20])


def test_recall_of_rows_by_hand() -> None:
    assert recall_of(np.array([[1, 2], [3, 4], [5, 6]]), [[1, 9], [3], []]) == 0.75


def test_every_index_is_measured_and_the_exact_one_is_exact() -> None:
    vectors = unit_vectors(300)
    rows = index_rows(vectors, vectors[:10], [[row] for row in range(10)], [300], 0.5, SearchConfig())
    assert [row[:2] for row in rows] == [[300, kind] for kind in ("flat", "fp16", "hnsw", "ivfpq")]
    assert all(len(row) == len(INDEX_HEAD) for row in rows)
    assert rows[0][4:6] == [1.0, 1.0]
    assert rows[0][3] == 64  # 16 numbers of 4 bytes, and a header of 0.2 bytes a vector
    assert 32 <= float(rows[1][3]) < 33


def scripted(fails: str, seconds: float) -> SearchCall:
    async def call(query: str) -> tuple[Document, ...]:
        await asyncio.sleep(seconds)
        if query == fails:
            raise RuntimeError("refused")
        return ()

    return call


async def test_callers_ask_in_turn_and_failures_are_counted_apart() -> None:
    latencies_s, failed, wall_s = await measure(scripted("b", 0.01), ["a", "b"], callers=2, seconds=0.2)
    assert len(latencies_s) + failed >= 4
    assert abs(len(latencies_s) - failed) <= 2  # every second query fails
    assert min(latencies_s) >= 0.009
    assert wall_s >= 0.2
