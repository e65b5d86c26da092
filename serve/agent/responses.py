"""The steps of a rollout as the events of OpenAI's Responses. Pure: knows nothing of Ray, HTTP or clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from calibadv.rollout.protocols import Answered, Call, Result, Step
from calibadv.tags import think_text
from calibadv.types import TokenUnit, Trajectory, TurnKind
from serve.agent import items
from serve.agent.citations import Citation, Searches, citations
from serve.agent.items import Made, Named
from serve.agent.news import Written

SEARCH_FAILED = "The search did not answer, so that the agent could not go on. Ask again later."

Event = Mapping[str, Any]
"""JSON-ready, in the shape of the `openai` package's `ResponseStreamEvent`."""
LAST = ("response.completed", "response.incomplete", "response.failed")
"""The type of the event that ends a response is one of these."""


@dataclass(frozen=True, slots=True)
class Open:
    """A text that is being written: its output item, and what was told of it."""

    index: int
    text: str = ""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """A response as far as it has come."""

    response: Mapping[str, Any]  # in the shape of the `openai` package's `Response`; never changed in place
    sent: int = 0  # events so far
    searches: Searches = ()
    waiting: tuple[int, ...] = ()  # output items of calls without a result
    thought: Open | None = None  # of the turn that is written; it stays until the turn is whole
    answer: Open | None = None


Told = tuple[Progress, list[Event]]


def begin(response_id: str, model: str, created_at: float, temperature: float, top_p: float) -> Told:
    """A response to which nothing is known yet."""
    response = {
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
    snapshot = {"response": response}
    return _told(Progress(response), [("response.created", snapshot), ("response.in_progress", snapshot)])


def step_events(progress: Progress, step: Step | Written) -> Told:
    """More text of a turn; a sampled turn's thought and calls; or the results of its calls."""
    if isinstance(step, Written):
        told = _think(progress, step.thought)
        return _then(told, _say(told[0], step.answer)) if step.answer else told
    if isinstance(step, Answered):
        pairs = zip(
            progress.waiting, step.calls, step.results, strict=False
        )  # a dead stream's items are not waited for
        told = reduce(lambda so_far, pair: _then(so_far, _result(so_far[0], *pair)), pairs, _nothing(progress))
        return replace(told[0], waiting=()), told[1]
    told = _think(progress, unsaid(progress.thought.text if progress.thought else "", think_text(step.said.text)))
    told = _then(told, _end_thought(told[0]))
    told = replace(told[0], thought=None), told[1]
    if progress.answer is not None and unsaid(progress.answer.text, step.said.answer) is None:
        told = _then(told, _take_back(told[0], progress.answer.index))
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
        cited = citations(trajectory.answer, progress.searches, tokens)
        told = _then(told, _say(told[0], unsaid(progress.answer.text if progress.answer else "", trajectory.answer)))
        told = _then(told, _end_answer(told[0], trajectory.answer, cited))
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
    told = _end_thought(progress, "incomplete")
    if progress.answer is not None:
        told = _then(told, _take_back(told[0], progress.answer.index))
    told = _then(told, _close(told[0]))
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


def unsaid(told: str, whole: str | None) -> str | None:
    """What `whole` has beside what was told of it; None where that is no beginning of it."""
    return whole[len(told) :] if whole is not None and whole.startswith(told) else None


def _think(progress: Progress, delta: str | None) -> Told:
    """More of the turn's thought, which begins with its first words."""
    if not delta:
        return _nothing(progress)
    told = _nothing(progress)
    if progress.thought is None:
        key, index = _place(progress)
        told = _added(replace(progress, thought=Open(index)), items.begun_thought(key, index))
    thought = _opened(told[0].thought)
    told = replace(told[0], thought=replace(thought, text=thought.text + delta)), told[1]
    return _then(told, _more(told[0], thought.index, delta))


def _end_thought(progress: Progress, status: str = "completed") -> Told:
    """The turn's thought is whole, if it has one that is still written."""
    thought = progress.thought
    if thought is None or thought.ended:
        return _nothing(progress)
    item = progress.response["output"][thought.index]
    ended = replace(progress, thought=replace(thought, ended=True))
    return _put(ended, thought.index, items.ended_thought(item, thought.index, thought.text, status))


def _say(progress: Progress, delta: str | None) -> Told:
    """More of the answer, before which the thought ends."""
    told = _end_thought(progress)
    if progress.answer is None:
        key, index = _place(told[0])
        told = _then(told, _added(replace(told[0], answer=Open(index)), items.begun_answer(key, index)))
    answer = _opened(told[0].answer)
    if not delta:
        return told
    told = replace(told[0], answer=replace(answer, text=answer.text + delta)), told[1]
    return _then(told, _more(told[0], answer.index, delta))


def _end_answer(progress: Progress, answer: str, cited: Sequence[Citation]) -> Told:
    index = _opened(progress.answer).index
    item = progress.response["output"][index]
    return _put(replace(progress, answer=None), index, items.ended_answer(item, index, answer, cited))


def _take_back(progress: Progress, index: int) -> Told:
    """What was begun as an answer is none."""
    item = progress.response["output"][index]
    return _put(replace(progress, answer=None), index, items.given_up(item, index))


def _more(progress: Progress, index: int, delta: str) -> Told:
    return _put(progress, index, items.more_text(progress.response["output"][index], index, delta))


def _opened(text: Open | None) -> Open:
    assert text is not None
    return text


def _call(progress: Progress, call: Call) -> Told:
    key, index = _place(progress)
    return _added(replace(progress, waiting=(*progress.waiting, index)), items.begun_call(key, index, call))


def _result(progress: Progress, index: int, _: Call, result: Result) -> Told:
    item, named = items.answered_call(progress.response["output"][index], index, result, len(progress.searches) + 1)
    if item["type"] == "file_search_call":
        progress = replace(progress, searches=(*progress.searches, result.documents))
    return _put(progress, index, (item, named))


def _close(progress: Progress) -> Told:
    """Calls that never got a result, such as a search where only an answer was left."""
    told = _nothing(replace(progress, waiting=()))
    for index in progress.waiting:
        told = _then(told, _put(told[0], index, items.given_up(told[0].response["output"][index], index)))
    return told


def _finish(progress: Progress, last: Mapping[str, Any]) -> Told:
    whole = {**progress.response, **last}
    return _told(replace(progress, response=whole), [(f"response.{whole['status']}", {"response": whole})])


# ---- numbers and places -----------------------------------------------------------------------------------------


def _place(progress: Progress) -> tuple[str, int]:
    """(what makes its id, index) of the next output item."""
    index = len(progress.response["output"])
    return f"{progress.response['id'].removeprefix('resp_')}_{index}", index


def _added(progress: Progress, made: Made) -> Told:
    return _put(progress, len(progress.response["output"]), made)


def _put(progress: Progress, index: int, made: Made) -> Told:
    """The response with its output item of that index; the response that was sent stays as it was."""
    item, named = made
    output = progress.response["output"]
    response = {**progress.response, "output": [*output[:index], item, *output[index + 1 :]]}
    return _told(replace(progress, response=response), named)


def _nothing(progress: Progress) -> Told:
    return progress, []


def _then(told: Told, more: Told) -> Told:
    return more[0], [*told[1], *more[1]]


def _told(progress: Progress, named: Sequence[Named]) -> Told:
    """The events with their numbers."""
    events = [
        {"type": name, "sequence_number": number, **fields}
        for number, (name, fields) in enumerate(named, start=progress.sent)
    ]
    return replace(progress, sent=progress.sent + len(events)), [*events]
