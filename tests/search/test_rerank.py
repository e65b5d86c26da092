"""MaxSim by hand, and what a reranker may and may not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibadv.search.embeddings import load_or_embed
from calibadv.search.rerank import LateInteraction, NoReranker, max_sim, rarity
from tests.search.fakes import CORPUS, WordEncoder


def test_max_sim_of_two_documents_by_hand() -> None:
    query = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    # Document 0 has tokens (1, 0), (0.6, 0.8); document 1 has (0, 1) alone.
    tokens = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=np.float32)
    scores = max_sim(query, tokens, np.array([2, 1]))
    # Document 0: (max(1, 0.6) + max(0, 0.8)) / 2; document 1: (0 + 1) / 2.
    np.testing.assert_allclose(scores, [0.9, 0.5])


def test_max_sim_with_weights_by_hand() -> None:
    query = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    tokens = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=np.float32)
    scores = max_sim(query, tokens, np.array([2, 1]), np.array([1.0, 3.0], dtype=np.float32))
    # Document 0: (1 * 1 + 3 * 0.8) / 4; document 1: (1 * 0 + 3 * 1) / 4.
    np.testing.assert_allclose(scores, [0.85, 0.75])


def test_rarity_is_bm25s_idf_by_hand() -> None:
    # Of 3 documents 3, 1 and 0 hold the token; the last id is beyond the table.
    expected = [np.log(1 + 0.5 / 3.5), np.log(1 + 2.5 / 1.5), np.log(1 + 3.5 / 0.5)]
    np.testing.assert_allclose(rarity(np.array([0, 1, 7]), np.array([3, 1]), 3), expected, rtol=1e-6)


def test_max_sim_of_a_query_without_tokens_is_zero() -> None:
    tokens = np.ones((3, 2), dtype=np.float32)
    assert max_sim(np.zeros((0, 2), dtype=np.float32), tokens, np.array([1, 2])).tolist() == [0.0, 0.0]


def test_max_sim_agrees_with_a_loop_over_documents() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([3, 1, 7, 2])
    tokens, query = rng.normal(size=(13, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    loop = [(query @ part.T).max(axis=1).mean() for part in np.split(tokens, np.cumsum(lengths)[:-1])]
    np.testing.assert_allclose(max_sim(query, tokens, lengths), loop, rtol=1e-5)


def late(folder: Path, scores: str) -> LateInteraction:
    encoder = WordEncoder()
    return LateInteraction(CORPUS, encoder, load_or_embed(CORPUS, encoder, folder, tokens=True), scores)


def test_late_interaction_puts_the_document_with_the_querys_words_first(tmp_path: Path) -> None:
    (ranked,) = late(tmp_path, "colbert").rerank(["harbour town Norway capital"], [CORPUS])
    assert ranked[0].id == "d4"
    assert ranked[0].score == pytest.approx(3 / 4)  # three of the four words are in it
    assert sorted(d.id for d in ranked) == sorted(d.id for d in CORPUS)
    assert late(tmp_path, "colbert").rerank(["harbour"], [()]) == [[]]


def test_a_rare_word_outweighs_two_that_every_document_has(tmp_path: Path) -> None:
    query, candidates = ["is a norway"], [(CORPUS[2], CORPUS[4])]  # "is" and "a" are in both, "norway" in d4 alone
    colbert, weighted = (late(tmp_path, scores).rerank(query, candidates)[0] for scores in ("colbert", "weighted"))
    assert colbert[1].score == pytest.approx(2 / 3)
    assert [document.id for document in weighted] == ["d4", "d2"]
    # d4 holds the whole query: MaxSim 1. Its words: oslo twice and six others, so that the cosine is 3 / sqrt(3 * 10).
    assert weighted[0].score == pytest.approx((1 + 3 / np.sqrt(30)) / 2, abs=1e-3)
    # d2 misses the weight of "norway", ln(1 + 4.5 / 1.5); "is" is in all 5 documents, "a" in 3.
    held, missed = np.log(1 + 0.5 / 5.5) + np.log(1 + 2.5 / 3.5), np.log(1 + 4.5 / 1.5)
    cosine = 2 / np.sqrt(3 * 16)  # quiet 2, river 2, is, a, 1998, film, directed, by, anna, berg
    assert weighted[1].score == pytest.approx((held / (held + missed) + cosine) / 2, abs=1e-3)


@pytest.mark.parametrize("scores", ["colbert", "weighted"])
def test_ties_keep_the_retrievers_order(tmp_path: Path, scores: str) -> None:
    (ranked,) = late(tmp_path, scores).rerank(["capital"], [(CORPUS[1], CORPUS[0])])
    assert [d.id for d in ranked] == ["d1", "d0"]


def test_no_reranker_changes_nothing() -> None:
    assert NoReranker().rerank(["q"], [CORPUS]) == [list(CORPUS)]
