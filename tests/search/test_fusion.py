"""Reciprocal rank fusion by hand, and the hybrid retriever around two scripted ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.search.fusion import HybridRetriever, reciprocal_rank_fusion
from calibadv.types import Document

ids = st.lists(st.sampled_from("abcdefgh"), unique=True)


class Scripted:
    def __init__(self, ranking: str) -> None:
        self.ranking = ranking
        self.asked: list[int] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        self.asked.append(k)
        return [[Document(doc_id, "", "", score=9.0) for doc_id in self.ranking[:k]] for _ in queries]


def test_two_rankings_by_hand() -> None:
    fused = dict(reciprocal_rank_fusion(["abc", "cd"]))
    assert fused == pytest.approx({"a": 1 / 61, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 62})
    assert [doc_id for doc_id, _ in reciprocal_rank_fusion(["abc", "cd"])] == ["c", "a", "b", "d"]


def test_a_tie_goes_to_the_first_ranking() -> None:
    assert [doc_id for doc_id, _ in reciprocal_rank_fusion(["a", "b"])] == ["a", "b"]
    assert [doc_id for doc_id, _ in reciprocal_rank_fusion(["b", "a"])] == ["b", "a"]


def test_nothing_ranked_fuses_to_nothing() -> None:
    assert reciprocal_rank_fusion([]) == reciprocal_rank_fusion(["", ""]) == []


@given(ranking=ids)
def test_one_ranking_keeps_its_order(ranking: list[str]) -> None:
    assert [doc_id for doc_id, _ in reciprocal_rank_fusion([ranking, []])] == ranking


@given(rankings=st.lists(ids, max_size=4))
def test_scores_depend_on_no_order_of_the_rankings_and_fall(rankings: list[list[str]]) -> None:
    fused = reciprocal_rank_fusion(rankings)
    assert dict(fused) == dict(reciprocal_rank_fusion(rankings[::-1]))
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)
    assert {doc_id for doc_id, _ in fused} == {doc_id for ranking in rankings for doc_id in ranking}


def test_hybrid_looks_deep_fuses_and_cuts() -> None:
    dense, lexical = Scripted("abcd"), Scripted("d")
    hybrid = HybridRetriever([dense, lexical], depth=4)
    (found,) = hybrid.search(["q"], 2)
    assert (dense.asked, lexical.asked) == ([4], [4])
    assert [(document.id, document.score) for document in found] == [("d", 1 / 64 + 1 / 61), ("a", 1 / 61)]
    assert hybrid.search([], 2) == []


def test_hybrid_answers_with_what_one_retriever_finds() -> None:
    (found,) = HybridRetriever([Scripted(""), Scripted("xy")]).search(["q"], 5)
    assert [document.id for document in found] == ["x", "y"]
