"""What a response consists of, one output item each, and the events that tell of it. Pure.

A thought is a reasoning item, a search a file search with its query and what it found, any other tool a call of a
server's tool, and the answer a message whose annotations are its citations. Thought and answer are begun, get more text
as it is written, and end. Items and events are JSON-ready as they are: they are right by construction, which tests hold
to the types of the `openai` package, and checking each of them again while it streams took a third of the time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from calibadv.rollout.protocols import SEARCH, Call, Result, query_of
from serve.agent.citations import Citation

Item = Mapping[str, Any]
Named = tuple[str, Mapping[str, Any]]
"""An event without its number: its type and its fields."""
Made = tuple[Item, list[Named]]
"""An item as it is now, and what is told of it. `index` is its place in the response, `key` makes its id."""


def begun_thought(key: str, index: int) -> Made:
    """A thought of which no word is known."""
    item = {"id": f"rs_{key}", "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}
    return item, [("response.output_item.added", {"output_index": index, "item": item})]


def begun_answer(key: str, index: int) -> Made:
    """An answer of which no word is known."""
    item = {"id": f"msg_{key}", "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
    empty = {"type": "output_text", "text": "", "annotations": []}
    return item, [
        ("response.output_item.added", {"output_index": index, "item": item}),
        ("response.content_part.added", {**_at(item, index), "part": empty}),
    ]


def more_text(item: Item, index: int, delta: str) -> Made:
    """More of a thought or an answer; the item stays as it is until it is whole."""
    if item["type"] == "reasoning":
        return item, [("response.reasoning_text.delta", {**_at(item, index), "delta": delta})]
    return item, [("response.output_text.delta", {**_at(item, index), "delta": delta, "logprobs": []})]


def ended_thought(item: Item, index: int, text: str, status: str = "completed") -> Made:
    """The whole thought."""
    whole = {**item, "content": [{"type": "reasoning_text", "text": text}], "status": status}
    return whole, [
        ("response.reasoning_text.done", {**_at(item, index), "text": text}),
        ("response.output_item.done", {"output_index": index, "item": whole}),
    ]


def begun_call(key: str, index: int, call: Call) -> Made:
    """A call that has no result yet."""
    if call.tool != SEARCH:
        item: Item = {
            "id": f"mcp_{key}",
            "type": "mcp_call",
            "name": call.tool,
            "server_label": "calibadv",
            "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
            "status": "in_progress",
        }
        return item, [("response.output_item.added", {"output_index": index, "item": item})]
    query = query_of(call)
    item = {
        "id": f"fs_{key}",
        "type": "file_search_call",
        "queries": [query] if query else [],
        "status": "searching",
        "results": None,
    }
    at = {"item_id": item["id"], "output_index": index}
    return item, [
        ("response.output_item.added", {"output_index": index, "item": {**item, "status": "in_progress"}}),
        ("response.file_search_call.in_progress", at),
        ("response.file_search_call.searching", at),
    ]


def answered_call(item: Item, index: int, result: Result, search: int) -> Made:
    """The same call with its result; `search`: which of the rollout's it is, from 1, if it is one."""
    if item["type"] != "file_search_call":
        whole = {**item, "status": "completed", "output": result.text}
        return whole, [("response.output_item.done", {"output_index": index, "item": whole})]
    found = [
        {
            "file_id": document.id,
            "filename": document.title,
            "text": document.text,
            "score": document.score,
            "attributes": {"search": search, "rank": rank},
        }
        for rank, document in enumerate(result.documents, start=1)
    ]
    whole = {**item, "status": "completed", "results": found}
    return whole, [
        ("response.file_search_call.completed", {"item_id": item["id"], "output_index": index}),
        ("response.output_item.done", {"output_index": index, "item": whole}),
    ]


def given_up(item: Item, index: int) -> Made:
    """A call that never gets a result; an answer that was begun and is none: it has no text."""
    whole = {**item, "status": "incomplete"}
    return whole, [("response.output_item.done", {"output_index": index, "item": whole})]


def ended_answer(item: Item, index: int, answer: str, cited: Sequence[Citation]) -> Made:
    """The whole answer with its citations."""
    notes = [annotation(one, answer) for one in cited]
    part = {"type": "output_text", "text": answer, "annotations": notes}
    whole = {**item, "content": [part], "status": "completed"}
    at = _at(item, index)
    return whole, [
        *(
            ("response.output_text.annotation.added", {**at, "annotation_index": number, "annotation": note})
            for number, note in enumerate(notes)
        ),
        ("response.output_text.done", {**at, "text": answer, "logprobs": []}),
        ("response.content_part.done", {**at, "part": part}),
        ("response.output_item.done", {"output_index": index, "item": whole}),
    ]


def _at(item: Item, index: int) -> dict[str, Any]:
    """Where its text stands."""
    return {"item_id": item["id"], "output_index": index, "content_index": 0}


def annotation(citation: Citation, answer: str) -> dict[str, Any]:
    """A citation as an annotation of the answer: OpenAI's file citation, and what the agent knows of the passage."""
    document = citation.document
    return {
        "type": "file_citation",
        "file_id": document.id,
        "filename": document.title,
        "index": len(answer),
        "start_index": 0,
        "end_index": len(answer),
        "status": str(citation.status),
        "title": document.title,
        "passage": document.text,
        "search": citation.search,
        "rank": citation.rank,
        "score": document.score,
    }
