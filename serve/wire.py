"""The JSON of `POST /retrieve`: two request shapes in, one response shape out. Knows nothing of Ray or HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from calibadv.json_lines import json_value
from calibadv.refusals import short_repr
from calibadv.search.settings import SearchConfig
from calibadv.types import Document

_SEARCH_R1 = frozenset({"queries", "topk", "return_scores"})
_RERANKED = frozenset({"queries", "topk_retrieval", "topk_rerank", "return_scores", "not_sort"})


@dataclass(frozen=True, slots=True)
class RetrieveRequest:
    """What a client asked for; None is the server's own setting."""

    queries: tuple[str, ...]
    top_k: int | None = None
    top_k_retrieve: int | None = None
    return_scores: bool = False
    retrieval_order: bool = False  # `not_sort`: the reranker chooses, the retriever's order stays


def parse_retrieve(body: bytes, config: SearchConfig) -> RetrieveRequest:
    """The request in `body`: Search-R1's `{queries, topk, return_scores}` or the one with a reranker, `{queries,
    topk_retrieval, topk_rerank, return_scores, not_sort}`; all but `queries` may be left out.

    Raises `ValueError` naming the field, its value and what was expected; over-long queries are refused here.
    """
    try:
        fields = json_value(body)
    except ValueError as error:
        raise ValueError(f"the body is not JSON ({error}); expected an object with a list 'queries'") from error
    if not isinstance(fields, dict):
        raise ValueError(f"the body is a JSON {type(fields).__name__}; expected an object with a list 'queries'")
    if not (fields.keys() <= _SEARCH_R1 or fields.keys() <= _RERANKED):
        raise ValueError(
            f"fields {short_repr(sorted(fields))}; expected some of {sorted(_SEARCH_R1)} or of {sorted(_RERANKED)}"
        )
    queries = fields.get("queries")
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise ValueError("'queries' is missing or not a list of strings")
    config.check_queries(queries)
    return RetrieveRequest(
        queries=tuple(queries),
        top_k=_integer(fields, "topk_rerank" if "topk_rerank" in fields else "topk"),
        top_k_retrieve=_integer(fields, "topk_retrieval"),
        return_scores=_flag(fields, "return_scores"),
        retrieval_order=_flag(fields, "not_sort"),
    )


def retrieve_response(found: Sequence[Sequence[Document]], return_scores: bool) -> dict[str, Any]:
    """`{"result": [[{"document": {...}, "score": s}, ...], ...]}`, a list a query; without scores, plain documents.

    `contents` is the title in quotes, a new line and the text: what Search-R1's client reads.
    """
    return {"result": [[_entry(document, return_scores) for document in documents] for documents in found]}


def _entry(document: Document, return_scores: bool) -> dict[str, Any]:
    fields = {
        "id": document.id,
        "title": document.title,
        "text": document.text,
        "contents": f'"{document.title}"\n{document.text}',
    }
    return {"document": fields, "score": document.score} if return_scores else fields


def _integer(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ValueError(f"{name!r} is {short_repr(value)}; expected a whole number")
    return value


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name!r} is {short_repr(value)}; expected true or false")
    return value
