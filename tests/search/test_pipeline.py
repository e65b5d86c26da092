"""The pipeline around any retriever: rank, cache, caps, hostile queries."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibadv.search.build import build_pipeline
from calibadv.search.pipeline import SearchPipeline
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from tests.search.fakes import CORPUS, WordEncoder


def pipeline(folder: Path, encoder: WordEncoder | None = None, **chosen: object) -> SearchPipeline:
    return build_pipeline(CORPUS, SearchConfig(**chosen), folder, encoder=encoder or WordEncoder())  # type: ignore[arg-type]


@pytest.mark.parametrize("retriever", ["dense", "bm25", "hybrid"])
@pytest.mark.parametrize("reranker", ["late", "none"])
def test_every_combination_finds_the_obvious_document(tmp_path: Path, retriever: str, reranker: str) -> None:
    found = pipeline(tmp_path, retriever=retriever, reranker=reranker).search_batch(
        ["capital of France", "harbour town Norway", "film director born in Oslo"]
    )
    assert [documents[0].id for documents in found] == ["d0", "d4", "d3"]
    assert all(a.score >= b.score for documents in found for a, b in pairwise(documents))


def test_three_documents_are_kept_by_default_and_fewer_when_the_corpus_is_smaller(tmp_path: Path) -> None:
    assert [len(d) for d in pipeline(tmp_path).search_batch(["capital"])] == [3]
    tiny = build_pipeline(CORPUS[:2], SearchConfig(), tmp_path, encoder=WordEncoder())
    assert [len(d) for d in tiny.search_batch(["capital"])] == [2]


def test_retrieval_and_late_interaction_share_one_forward(tmp_path: Path) -> None:
    encoder = WordEncoder()
    pipeline(tmp_path, encoder).search_batch(["capital", "Oslo", "capital"])
    assert encoder.queries == ["capital", "Oslo"]


def test_an_equal_query_is_answered_from_memory(tmp_path: Path) -> None:
    encoder = WordEncoder()
    search = pipeline(tmp_path, encoder)
    first = search.search_batch(["capital of France", "Oslo", "Oslo"])
    again = search.search_batch(["  capital  of France "])  # white space is not part of a query
    assert again == first[:1]
    assert encoder.queries == ["capital of France", "Oslo"]
    assert search.search_batch(["Oslo"], top_k=1) == [first[1][:1]]  # another top-k is another question
    assert encoder.queries == ["capital of France", "Oslo", "Oslo"]


def test_cache_size_bounds_what_is_remembered(tmp_path: Path) -> None:
    for size, asked in (
        (0, ["Oslo", "Paris", "Oslo", "Paris"]),
        (1, ["Oslo", "Paris", "Oslo"]),
        (2, ["Oslo", "Paris"]),
    ):
        encoder = WordEncoder()
        search = pipeline(tmp_path, encoder, cache_size=size)
        for query in ("Oslo", "Oslo", "Paris", "Oslo"):
            search.search_batch([query])
        assert encoder.queries == (asked if size else ["Oslo", "Paris", "Oslo"])


def test_an_over_long_query_is_cut_and_answered(tmp_path: Path) -> None:
    search = pipeline(tmp_path, max_query_chars=20)
    assert search.search_batch(["capital of France " * 1000]) == search.search_batch(["capital of France ca"])
    with pytest.raises(ValueError, match=r"query 0 has 21 characters; the limit is 20"):
        SearchConfig(max_query_chars=20).check_queries(["x" * 21])


@pytest.mark.parametrize(
    ("top_k", "top_k_retrieve", "message"),
    [(0, None, "top_k = 0"), (5, 4, "at most top_k_retrieve = 4"), (101, None, "the limit is 100")],
)
def test_top_k_outside_its_bounds_is_refused(
    tmp_path: Path, top_k: int, top_k_retrieve: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(tmp_path).search_batch(["Oslo"], top_k, top_k_retrieve)


def test_too_many_queries_are_refused(tmp_path: Path) -> None:
    search = pipeline(tmp_path, max_queries=2)
    with pytest.raises(ValueError, match="3 queries in one call; the limit is 2"):
        search.search_batch(["a", "b", "c"])
    assert search.search_batch([]) == []


def test_retrieval_order_keeps_the_rerankers_choice_in_the_retrievers_order() -> None:
    documents = [Document(str(i), "", "") for i in range(4)]

    class Retriever:
        def search(self, queries: list[str], k: int) -> list[list[Document]]:
            return [documents[:k] for _ in queries]

    class Backwards:
        def rerank(self, queries: list[str], candidates: list[list[Document]]) -> list[list[Document]]:
            assert len(queries) == len(candidates)
            return [found[::-1] for found in candidates]

    search = SearchPipeline(Retriever(), Backwards(), SearchConfig(top_k_retrieve=4, top_k=2))  # type: ignore[arg-type]
    assert [d.id for d in search.search_batch(["q"])[0]] == ["3", "2"]
    assert [d.id for d in search.search_batch(["q"], retrieval_order=True)[0]] == ["2", "3"]


@pytest.mark.parametrize("retriever", ["dense", "bm25"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(st.characters(exclude_categories=()), max_size=200))
def test_no_string_crashes_a_search(tmp_path: Path, retriever: str, query: str) -> None:
    (documents,) = pipeline(tmp_path, retriever=retriever).search_batch([query])
    assert len(documents) <= 3


def test_one_query_alone_and_among_others_finds_the_same(tmp_path: Path) -> None:
    queries = [d.text for d in CORPUS] * 5
    together = pipeline(tmp_path, cache_size=0).search_batch(queries)
    alone = pipeline(tmp_path, cache_size=0)
    assert [[d.id for d in found] for found in together] == [
        [d.id for d in alone.search_batch([query])[0]] for query in queries
    ]


def test_an_empty_corpus_and_a_repeated_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 documents; expected at least 1"):
        build_pipeline([], SearchConfig(), tmp_path, encoder=WordEncoder())
    with pytest.raises(ValueError, match="'d0' occurs 2 times"):
        build_pipeline([*CORPUS, CORPUS[0]], SearchConfig(), tmp_path, encoder=WordEncoder())


def test_bm25_is_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pipeline(tmp_path, retriever="bm25", reranker="none").search_batch(["Norway"])
    monkeypatch.setattr("bm25s.BM25.index", lambda *_: pytest.fail("indexed again"))
    assert pipeline(tmp_path, retriever="bm25", reranker="none").search_batch(["Norway"]) == first
    assert pipeline(tmp_path, retriever="bm25", reranker="none").search_batch(["zebra", ""]) == [(), ()]


def test_a_reranker_that_cannot_be_loaded_is_refused_before_the_corpus_is_embedded(tmp_path: Path) -> None:
    encoder, model = WordEncoder(), tmp_path / "model"
    model.mkdir()
    with pytest.raises(ValueError, match=str(model)):
        pipeline(tmp_path, encoder, reranker="cross", cross_encoder=str(model))
    assert encoder.passages == []
