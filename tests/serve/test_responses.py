"""The events of a rollout, one by one, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from calibadv.rollout.protocols import Answered, Call, Result, Said, Sampled
from calibadv.types import Document, Trajectory, Turn, TurnKind
from serve.agent import chat, responses
from serve.agent.citations import citations
from serve.agent.news import Written
from serve.agent.streams import json_text

OSLO = Document("doc/1", "Ada", "Ada was born in Oslo.", 0.9)
CALL = Call("search", {"query": " Ada "})
SEARCHED = Said(TurnKind.SEARCH, "<think> who </think><search> Ada </search>", (CALL,))
SAID = Said(TurnKind.ANSWER, "<think> clear </think><answer> Oslo </answer>", (), "Oslo")
IDS = np.arange(3)
TURN = Turn(TurnKind.SEARCH, IDS, np.zeros(3, np.float32), np.arange(4), SEARCHED.text, "Ada")
LAST = Turn(TurnKind.ANSWER, IDS[:2], np.zeros(2, np.float32), IDS[:0], SAID.text)
# 5 tokens of the prompt and 4 of the documents were read, 3 + 2 written.
DONE = Trajectory(np.arange(5), (TURN, LAST), "Oslo", 0.0, 1.0, 0.0)
STEPS = [Sampled(0, SEARCHED), Answered(0, (CALL,), (Result((OSLO,)),)), Sampled(1, SAID)]


EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def told(steps: list[Any], trajectory: Trajectory | None) -> list[Any]:
    """The events, each held to OpenAI's own type of its name, after a passage through JSON."""
    progress, events = responses.begin("resp_a", "tiny", 1.0, 0.0, 1.0)
    for step in steps:
        progress, more = responses.step_events(progress, step)
        events = [*events, *more]
    if trajectory is not None:
        events = [*events, *responses.end(progress, trajectory)[1]]
    return [EVENTS.validate_json(json_text(event)) for event in events]


def test_the_events_of_a_search_and_an_answer_in_their_order_and_numbered() -> None:
    events = told(STEPS, DONE)
    thought = ["output_item.added", "reasoning_text.delta", "reasoning_text.done", "output_item.done"]
    assert [event.type.removeprefix("response.") for event in events] == [
        *("created", "in_progress"),
        *thought,
        *("output_item.added", "file_search_call.in_progress", "file_search_call.searching"),
        *("file_search_call.completed", "output_item.done"),
        *thought,
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.annotation.added"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].response.output == []  # what was sent is not changed afterwards


def test_what_is_whole_at_the_end_is_what_its_events_have_told() -> None:
    events = told(STEPS, DONE)
    whole = events[-1].response
    assert whole.output == [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.type for item in whole.output] == ["reasoning", "file_search_call", "reasoning", "message"]
    assert len({item.id for item in whole.output}) == 4
    assert (whole.status, whole.output_text) == ("completed", "Oslo")
    assert (whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.total_tokens) == (9, 5, 14)


def test_a_search_has_its_query_and_its_documents_with_ranks_and_scores() -> None:
    (search,) = [item for item in told(STEPS, DONE)[-1].response.output if item.type == "file_search_call"]
    (found,) = search.results
    assert (search.queries, search.status) == (["Ada"], "completed")
    assert (found.file_id, found.filename, found.text, found.score) == ("doc/1", "Ada", OSLO.text, 0.9)
    assert found.attributes == {"search": 1, "rank": 1}


def test_a_citation_has_the_passage_and_its_place() -> None:
    (event,) = [event for event in told(STEPS, DONE) if event.type.endswith("annotation.added")]
    assert event.annotation.model_dump() == {
        "type": "file_citation",
        "file_id": "doc/1",
        "filename": "Ada",
        "index": 4,
        "start_index": 0,
        "end_index": 4,
        "status": "cited",
        "title": "Ada",
        "passage": "Ada was born in Oslo.",
        "search": 1,
        "rank": 1,
        "score": 0.9,
    }


def test_a_search_where_only_an_answer_was_left_is_incomplete_and_so_is_the_response() -> None:
    forced = replace(DONE, turns=(TURN,), answer=None, forced_final=True)
    *_, item, last = told([Sampled(0, SEARCHED)], forced)
    assert (item.type, item.item.status) == ("response.output_item.done", "incomplete")
    assert (last.type, last.response.output_text) == ("response.incomplete", "")
    assert last.response.incomplete_details.detail == "The agent still wanted to search when no search was left."


def test_a_search_that_failed_for_good_fails_the_response_in_words() -> None:
    failed = replace(DONE, turns=(TURN,), answer=None, infra_failed=True)
    last = told([Sampled(0, SEARCHED)], failed)[-1]
    assert (last.type, last.response.error.message) == ("response.failed", responses.SEARCH_FAILED)


def test_another_tool_is_a_call_with_its_output() -> None:
    call = Call("sum", {"a": 1})
    said = Said(TurnKind.CALL, "no thought", (call,))
    events = told([Sampled(0, said), Answered(0, (call,), (Result(text="2"),))], DONE)
    item = events[-1].response.output[0]
    assert (item.type, item.name, item.arguments, item.output) == ("mcp_call", "sum", '{"a": 1}', "2")


def test_chat_says_the_same_whole_and_in_chunks() -> None:
    head, cited = chat.Head("c", "tiny", 1), citations("Oslo", ((OSLO,),))
    whole = chat.completion(head, DONE, cited).choices[0]
    (note,) = whole.message.annotations
    assert (whole.message.content, whole.finish_reason) == ("Oslo", "stop")
    assert (note.url_citation.url, note.url_citation.end_index) == ("corpus:doc%2F1", 4)
    sent, chunks = chat.Sent(), []
    for step in STEPS:
        sent, more = chat.step_chunks(head, sent, step)
        chunks += more
    thoughts = [chunk.choices[0].delta.reasoning_content for chunk in chunks]
    assert thoughts == ["who\n", "Search: Ada\n", "clear\n"]
    text, end, usage = chat.last_chunks(head, sent, DONE, cited, usage=True)
    assert text.choices[0].delta.content == "Oslo"
    assert text.choices[0].delta.annotations == [note.model_dump()]
    assert (end.choices[0].finish_reason, usage.choices, usage.usage.total_tokens) == ("stop", [], 14)


WRITTEN = [
    *(Written(0, thought="wh"), *STEPS[:2]),
    *(Written(1, thought="cl"), Written(1, thought="ear", answer="Os"), STEPS[2]),
]


def test_what_is_told_as_it_is_written_joins_to_what_is_told_whole() -> None:
    events = told(WRITTEN, DONE)
    for kind, whole in (("reasoning_text", ["who", "clear"]), ("output_text", ["Oslo"])):
        deltas: dict[str, str] = {}
        for event in events:
            if event.type == f"response.{kind}.delta":
                deltas[event.item_id] = deltas.get(event.item_id, "") + event.delta
        assert list(deltas.values()) == whole == [e.text for e in events if e.type == f"response.{kind}.done"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response == told(STEPS, DONE)[-1].response
    done = [event.item.type for event in events if event.type == "response.output_item.done"]
    assert done == ["reasoning", "file_search_call", "reasoning", "message"]  # a thought ends before the answer begins


def test_chunks_end_a_thought_before_the_answer_begins() -> None:
    head, sent, said = chat.Head("c", "tiny", 1), chat.Sent(), []
    for step in WRITTEN:
        sent, chunks = chat.step_chunks(head, sent, step)
        said += [(getattr(c.choices[0].delta, "reasoning_content", ""), c.choices[0].delta.content) for c in chunks]
    whole, cited = chat.completion(head, DONE, ()), citations("Oslo", ((OSLO,),))
    assert said == [("wh", None), ("o\n", None), ("Search: Ada\n", None), ("cl", None), ("ear\n", "Os")]
    rest = chat.last_chunks(head, sent, DONE, cited, usage=False)[0].choices[0].delta
    assert ("Os" + (rest.content or ""), len(rest.annotations)) == (whole.choices[0].message.content, 1)


def test_an_answer_that_was_begun_and_is_none_has_no_text_and_no_place_in_the_whole() -> None:
    begun = [Written(0, answer="Ro"), *STEPS]
    events = told(begun, DONE)
    back, *_, message = [e.item for e in events if e.type == "response.output_item.done" and e.item.type == "message"]
    assert (back.status, back.content) == ("incomplete", [])
    assert message.id != back.id
    assert (events[-1].type, events[-1].response.output_text) == ("response.completed", "Oslo")
    head, sent = chat.Head("c", "tiny", 1), chat.Sent()
    for step in begun:
        sent, _ = chat.step_chunks(head, sent, step)
    with pytest.raises(chat.TakenBack, match="began an answer and then gave another"):
        chat.last_chunks(head, sent, DONE, (), usage=False)


def test_a_stream_that_fails_leaves_no_item_open() -> None:
    progress, _ = responses.begin("resp_a", "tiny", 1.0, 0.0, 1.0)
    for step in WRITTEN[:5]:
        progress, _ = responses.step_events(progress, step)
    progress, events = responses.failed(progress, "gone")
    statuses = [item["status"] for item in progress.response["output"]]
    assert statuses == ["completed", "completed", "completed", "incomplete"]
    assert events[-1]["type"] == "response.failed"


def test_chat_without_an_answer_is_a_refusal_in_words() -> None:
    cut = replace(DONE, turns=(TURN,), answer=None, truncated=True)
    choice = chat.completion(chat.Head("c", "tiny", 1), cut, ()).choices[0]
    assert (choice.message.content, choice.finish_reason) == (None, "length")
    assert choice.message.refusal == "The agent reached its limit of tokens before it answered."
