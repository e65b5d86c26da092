"""The steps of a rollout as the events of OpenAI's Responses. Pure: knows nothing of Ray, HTTP or clocks.

A thought is a reasoning item, a search a file search with its query and what it found, any other tool a call of a
server's tool, and the answer a message whose annotations are its citations. An engine gives a whole turn at a time, so
that each text is one delta.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseFailedEvent,
    ResponseFileSearchCallCompletedEvent,
    ResponseFileSearchCallInProgressEvent,
    ResponseFileSearchCallSearchingEvent,
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputTextAnnotationAddedEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseReasoningTextDoneEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)

from calibadv.rollout.protocols import SEARCH, Answered, Call, Result, Step, query_of
from calibadv.tags import think_text
from calibadv.types import TokenUnit, Trajectory, TurnKind
from serve.agent.citations import Citation, Searches, citations

SEARCH_FAILED = "The search did not answer, so that the agent could not go on. Ask again later."

Item = Mapping[str, Any]
Named = tuple[str, Mapping[str, Any]]
"""An event without its number: its type and its fields."""

_EVENTS: Mapping[str, Any] = {
    "response.created": ResponseCreatedEvent,
    "response.in_progress": ResponseInProgressEvent,
    "response.completed": ResponseCompletedEvent,
    "response.incomplete": ResponseIncompleteEvent,
    "response.failed": ResponseFailedEvent,
    "response.output_item.added": ResponseOutputItemAddedEvent,
    "response.output_item.done": ResponseOutputItemDoneEvent,
    "response.reasoning_text.delta": ResponseReasoningTextDeltaEvent,
    "response.reasoning_text.done": ResponseReasoningTextDoneEvent,
    "response.file_search_call.in_progress": ResponseFileSearchCallInProgressEvent,
    "response.file_search_call.searching": ResponseFileSearchCallSearchingEvent,
    "response.file_search_call.completed": ResponseFileSearchCallCompletedEvent,
    "response.content_part.added": ResponseContentPartAddedEvent,
    "response.content_part.done": ResponseContentPartDoneEvent,
    "response.output_text.delta": ResponseTextDeltaEvent,
    "response.output_text.annotation.added": ResponseOutputTextAnnotationAddedEvent,
    "response.output_text.done": ResponseTextDoneEvent,
}


LAST = (ResponseCompletedEvent, ResponseIncompleteEvent, ResponseFailedEvent)
"""One of these ends every response."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A response as far as it has come."""

    response: Response
    sent: int = 0  # events so far
    searches: Searches = ()
    waiting: tuple[int, ...] = ()  # output items of calls without a result


Told = tuple[Progress, list[ResponseStreamEvent]]


def begin(response_id: str, model: str, created_at: float, temperature: float, top_p: float) -> Told:
    """A response to which nothing is known yet."""
    response = Response.model_validate(
        {
            "id": response_id,
            "object": "response",
            "created_at": created_at,
            "model": model,
            "status": "in_progress",
            "output": [],
            "error": None,
            "incomplete_details": None,
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
            "temperature": temperature,
            "top_p": top_p,
        }
    )
    snapshot = {"response": response}
    return _told(Progress(response), [("response.created", snapshot), ("response.in_progress", snapshot)])


def step_events(progress: Progress, step: Step) -> Told:
    """A sampled turn's thought and calls, or the results of its calls."""
    if isinstance(step, Answered):
        pairs = zip(
            progress.waiting, step.calls, step.results, strict=False
        )  # a dead stream's items are not waited for
        told = reduce(lambda so_far, pair: _then(so_far, _result(so_far[0], *pair)), pairs, _nothing(progress))
        return replace(told[0], waiting=()), told[1]
    told = _nothing(progress)
    if thought := think_text(step.said.text):
        told = _then(told, _thought(progress, thought))
    if step.said.kind in (TurnKind.SEARCH, TurnKind.CALL):
        for call in step.said.calls:
            told = _then(told, _call(told[0], call))
    return told


def end(progress: Progress, trajectory: Trajectory, tokens: TokenUnit = TokenUnit.WORDS) -> Told:
    """The answer with its citations, and that the response is complete; without an answer, that and why it is not."""
    if trajectory.infra_failed:
        return failed(progress, SEARCH_FAILED)
    told = _close(progress)
    reason = no_answer(trajectory)
    if reason is None and trajectory.answer is not None:
        told = _then(
            told, _message(told[0], trajectory.answer, citations(trajectory.answer, progress.searches, tokens))
        )
    read = trajectory.num_tokens - trajectory.num_actions
    last: dict[str, Any] = {
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": "max_output_tokens", "detail": reason},
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": trajectory.num_actions,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": trajectory.num_tokens,
        },
    }
    return _then(told, _finish(told[0], last))


def failed(progress: Progress, message: str) -> Told:
    """The end of a response that something other than the agent ended."""
    told = _close(progress)
    return _then(told, _finish(told[0], {"status": "failed", "error": {"code": "server_error", "message": message}}))


def no_answer(trajectory: Trajectory) -> str | None:
    """Why a rollout ended without an answer, in words; None where it has one."""
    if trajectory.answer is not None:
        return None
    if trajectory.truncated:
        return "The agent reached its limit of tokens before it answered."
    if trajectory.forced_final:
        return "The agent still wanted to search when no search was left."
    return "The agent ended without an answer."


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


# ---- one item each ----------------------------------------------------------------------------------------------


def _thought(progress: Progress, text: str) -> Told:
    index = len(progress.response.output)
    item = {"id": _id(progress, "rs"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}
    whole = {**item, "content": [{"type": "reasoning_text", "text": text}], "status": "completed"}
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    return _told(
        _with(progress, index, whole),
        [
            ("response.output_item.added", {"output_index": index, "item": item}),
            ("response.reasoning_text.delta", {**at, "delta": text}),
            ("response.reasoning_text.done", {**at, "text": text}),
            ("response.output_item.done", {"output_index": index, "item": whole}),
        ],
    )


def _call(progress: Progress, call: Call) -> Told:
    index = len(progress.response.output)
    after = replace(progress, waiting=(*progress.waiting, index))
    if call.tool != SEARCH:
        item: Item = {
            "id": _id(progress, "mcp"),
            "type": "mcp_call",
            "name": call.tool,
            "server_label": "calibadv",
            "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
            "status": "in_progress",
        }
        return _told(_with(after, index, item), [("response.output_item.added", {"output_index": index, "item": item})])
    query = query_of(call)
    item = {
        "id": _id(progress, "fs"),
        "type": "file_search_call",
        "queries": [query] if query else [],
        "status": "searching",
        "results": None,
    }
    at = {"item_id": item["id"], "output_index": index}
    return _told(
        _with(after, index, item),
        [
            ("response.output_item.added", {"output_index": index, "item": {**item, "status": "in_progress"}}),
            ("response.file_search_call.in_progress", at),
            ("response.file_search_call.searching", at),
        ],
    )


def _result(progress: Progress, index: int, call: Call, result: Result) -> Told:
    before = progress.response.output[index].model_dump(exclude_unset=True)
    if call.tool != SEARCH:
        item = {**before, "status": "completed", "output": result.text}
        return _told(
            _with(progress, index, item), [("response.output_item.done", {"output_index": index, "item": item})]
        )
    number = len(progress.searches) + 1
    found = [
        {
            "file_id": document.id,
            "filename": document.title,
            "text": document.text,
            "score": document.score,
            "attributes": {"search": number, "rank": rank},
        }
        for rank, document in enumerate(result.documents, start=1)
    ]
    item = {**before, "status": "completed", "results": found}
    return _told(
        replace(_with(progress, index, item), searches=(*progress.searches, result.documents)),
        [
            ("response.file_search_call.completed", {"item_id": item["id"], "output_index": index}),
            ("response.output_item.done", {"output_index": index, "item": item}),
        ],
    )


def _message(progress: Progress, answer: str, cited: Sequence[Citation]) -> Told:
    index = len(progress.response.output)
    item = {"id": _id(progress, "msg"), "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
    empty = {"type": "output_text", "text": "", "annotations": []}
    part = {"type": "output_text", "text": answer, "annotations": [annotation(one, answer) for one in cited]}
    whole = {**item, "content": [part], "status": "completed"}
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    return _told(
        _with(progress, index, whole),
        [
            ("response.output_item.added", {"output_index": index, "item": item}),
            ("response.content_part.added", {**at, "part": empty}),
            ("response.output_text.delta", {**at, "delta": answer, "logprobs": []}),
            *(
                ("response.output_text.annotation.added", {**at, "annotation_index": number, "annotation": one})
                for number, one in enumerate(part["annotations"])
            ),
            ("response.output_text.done", {**at, "text": answer, "logprobs": []}),
            ("response.content_part.done", {**at, "part": part}),
            ("response.output_item.done", {"output_index": index, "item": whole}),
        ],
    )


def _close(progress: Progress) -> Told:
    """Calls that never got a result, such as a search where only an answer was left."""
    told = _nothing(replace(progress, waiting=()))
    for index in progress.waiting:
        item = {**progress.response.output[index].model_dump(exclude_unset=True), "status": "incomplete"}
        done = [("response.output_item.done", {"output_index": index, "item": item})]
        told = _then(told, _told(_with(told[0], index, item), done))
    return told


def _finish(progress: Progress, last: Mapping[str, Any]) -> Told:
    whole = Response.model_validate({**progress.response.model_dump(exclude_unset=True), **last})
    return _told(replace(progress, response=whole), [(f"response.{whole.status}", {"response": whole})])


# ---- numbers and places -----------------------------------------------------------------------------------------


def _id(progress: Progress, kind: str) -> str:
    return f"{kind}_{progress.response.id.removeprefix('resp_')}_{len(progress.response.output)}"


def _with(progress: Progress, index: int, item: Item) -> Progress:
    """The response with its output item of that index; the response that was sent stays as it was."""
    whole = progress.response.model_dump(exclude_unset=True)
    whole["output"] = [*whole["output"][:index], item, *whole["output"][index + 1 :]]
    return replace(progress, response=Response.model_validate(whole))


def _nothing(progress: Progress) -> Told:
    return progress, []


def _then(told: Told, more: Told) -> Told:
    return more[0], [*told[1], *more[1]]


def _told(progress: Progress, named: Sequence[Named]) -> Told:
    """The events with their numbers."""
    events = [
        _EVENTS[name].model_validate({"type": name, "sequence_number": number, **fields})
        for number, (name, fields) in enumerate(named, start=progress.sent)
    ]
    return replace(progress, sent=progress.sent + len(events)), events
