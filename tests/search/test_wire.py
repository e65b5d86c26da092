"""The JSON of `POST /retrieve`: both request shapes, and a plain refusal of everything else."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from serve.wire import RetrieveRequest, parse_retrieve, retrieve_response

LIMITS = SearchConfig(max_query_chars=10, max_queries=2)


def parse(fields: object) -> RetrieveRequest:
    return parse_retrieve(json.dumps(fields).encode(), LIMITS)


def test_search_r1_shape() -> None:
    assert parse({"queries": ["a", "b"], "topk": 3, "return_scores": True}) == RetrieveRequest(
        ("a", "b"), top_k=3, return_scores=True
    )


def test_shape_with_a_reranker() -> None:
    fields = {"queries": ["a"], "topk_retrieval": 20, "topk_rerank": 3, "return_scores": True, "not_sort": True}
    assert parse(fields) == RetrieveRequest(("a",), 3, 20, return_scores=True, retrieval_order=True)


def test_only_queries_are_needed() -> None:
    assert parse({"queries": ["a"]}) == RetrieveRequest(("a",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "'queries' is missing"),
        ({"queries": "who?"}, "not a list of strings"),
        ({"queries": [1]}, "not a list of strings"),
        ({"queries": ["a"], "topk": "3"}, "'topk' is '3'; expected a whole number"),
        ({"queries": ["a"], "topk": True}, "'topk' is True"),
        ({"queries": ["a"], "return_scores": 1}, "expected true or false"),
        ({"queries": ["a"], "top_k": 3}, r"fields \['queries', 'top_k'\]; expected some of"),
        ({"queries": ["a"], "topk": 3, "topk_rerank": 3}, "expected some of"),
        ({"queries": ["x" * 11]}, "query 0 has 11 characters; the limit is 10"),
        ({"queries": ["a"] * 3}, "3 queries in one call; the limit is 2"),
        ([], "the body is a JSON list"),
    ],
)
def test_what_is_wrong_is_named(fields: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(fields)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="the body is not JSON"):
        parse_retrieve(body, LIMITS)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(body: bytes) -> None:
    with suppress(ValueError):
        parse_retrieve(body, LIMITS)


def test_response_has_documents_with_or_without_scores() -> None:
    found = [[Document("d", "Oslo", "A town.", score=0.5)], []]
    document = {"id": "d", "title": "Oslo", "text": "A town.", "contents": '"Oslo"\nA town.'}
    assert retrieve_response(found, True) == {"result": [[{"document": document, "score": 0.5}], []]}
    assert retrieve_response(found, False) == {"result": [[document], []]}
