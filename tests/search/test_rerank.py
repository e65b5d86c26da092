"""MaxSim by hand, and what a reranker may and may not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibadv.search.embeddings import load_or_embed
from calibadv.search.rerank import LateInteraction, NoReranker, max_sim
from tests.search.fakes import CORPUS, WordEncoder


def test_max_sim_of_two_documents_by_hand() -> None:
    query = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    # Document 0 has tokens (1, 0), (0.6, 0.8); document 1 has (0, 1) alone.
    tokens = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=np.float32)
    scores = max_sim(query, tokens, np.array([2, 1]))
    # Document 0: (max(1, 0.6) + max(0, 0.8)) / 2; document 1: (0 + 1) / 2.
    np.testing.assert_allclose(scores, [0.9, 0.5])


def test_max_sim_of_a_query_without_tokens_is_zero() -> None:
    tokens = np.ones((3, 2), dtype=np.float32)
    assert max_sim(np.zeros((0, 2), dtype=np.float32), tokens, np.array([1, 2])).tolist() == [0.0, 0.0]


def test_max_sim_agrees_with_a_loop_over_documents() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([3, 1, 7, 2])
    tokens, query = rng.normal(size=(13, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    loop = [(query @ part.T).max(axis=1).mean() for part in np.split(tokens, np.cumsum(lengths)[:-1])]
    np.testing.assert_allclose(max_sim(query, tokens, lengths), loop, rtol=1e-5)


def test_late_interaction_puts_the_document_with_the_querys_words_first(tmp_path: Path) -> None:
    encoder = WordEncoder()
    late = LateInteraction(CORPUS, encoder, load_or_embed(CORPUS, encoder, tmp_path, tokens=True))
    (ranked,) = late.rerank(["harbour town Norway capital"], [CORPUS])
    assert ranked[0].id == "d4"
    assert ranked[0].score == pytest.approx(3 / 4)  # three of the four words are in it
    assert sorted(d.id for d in ranked) == sorted(d.id for d in CORPUS)
    assert late.rerank(["harbour"], [()]) == [[]]


def test_ties_keep_the_retrievers_order(tmp_path: Path) -> None:
    encoder = WordEncoder()
    late = LateInteraction(CORPUS, encoder, load_or_embed(CORPUS, encoder, tmp_path, tokens=True))
    (ranked,) = late.rerank(["capital"], [(CORPUS[1], CORPUS[0])])
    assert [d.id for d in ranked] == ["d1", "d0"]


def test_no_reranker_changes_nothing() -> None:
    assert NoReranker().rerank(["q"], [CORPUS]) == [list(CORPUS)]
