"""The steps of a rollout as OpenAI's chat completions, whole or in chunks. Pure, as `serve.agent.responses`.

Thoughts and searches stream as `reasoning_content`, a field that clients of reasoning models know; the answer is the
content, and its citations are annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from calibadv.rollout.protocols import Sampled, Step
from calibadv.tags import think_text
from calibadv.types import Trajectory, TurnKind
from serve.agent.citations import Citation
from serve.agent.items import annotation
from serve.agent.news import Written
from serve.agent.responses import no_answer, unsaid


@dataclass(frozen=True, slots=True)
class Head:
    """What is the same in a completion and in all of its chunks."""

    id: str
    model: str
    created: int  # Unix time, s


@dataclass(frozen=True, slots=True)
class Sent:
    """The thought of the turn that is written, and the answer, as far as a stream has told them."""

    thought: str = ""
    answer: str = ""
    ended: bool = False  # the thought's line, for the answer has begun


class TakenBack(RuntimeError):
    """Chunks of an answer cannot be taken back, and these are none: the stream must not end as if they were."""


def completion(head: Head, trajectory: Trajectory, cited: Sequence[Citation]) -> ChatCompletion:
    """The whole answer. Without one the message is a refusal that says why."""
    message = {"role": "assistant", **_content(trajectory, cited)}
    choice = {"index": 0, "finish_reason": _reason(trajectory), "message": message, "logprobs": None}
    return ChatCompletion.model_validate(
        {**_head(head, "chat.completion"), "choices": [choice], "usage": _usage(trajectory)}
    )


def first_chunk(head: Head) -> ChatCompletionChunk:
    """Who speaks."""
    return _chunk(head, {"role": "assistant", "content": ""})


def step_chunks(head: Head, sent: Sent, step: Step | Written) -> tuple[Sent, list[ChatCompletionChunk]]:
    """What the agent thinks, searches for and answers, as it does. `sent`: what was sent before."""
    if isinstance(step, Written):
        ended = sent.ended or bool(step.answer)
        line_end = "\n" if ended and not sent.ended and sent.thought + step.thought else ""
        told = {"reasoning_content": step.thought + line_end, "content": step.answer}
        sent = Sent(sent.thought + step.thought, sent.answer + step.answer, ended)
        return sent, [_chunk(head, {name: text for name, text in told.items() if text})]
    if not isinstance(step, Sampled):
        return sent, []
    rest = unsaid(sent.thought, think_text(step.said.text)) or ""
    lines = [rest] if (rest or sent.thought) and not sent.ended else []
    if step.said.kind is TurnKind.SEARCH:
        lines.append(f"Search: {step.said.query}")
    return Sent("", sent.answer), [_chunk(head, {"reasoning_content": f"{line}\n"}) for line in lines]


def last_chunks(
    head: Head, sent: Sent, trajectory: Trajectory, cited: Sequence[Citation], *, usage: bool
) -> list[ChatCompletionChunk]:
    """The rest of the answer with its annotations, the reason of the end, and the tokens where they are asked for.

    `TakenBack` where what was sent is no beginning of the answer.
    """
    content = _content(trajectory, cited)
    if trajectory.answer is not None:
        content["content"] = unsaid(sent.answer, trajectory.answer)
        if content["content"] is None:
            raise TakenBack("The agent began an answer and then gave another. Ask again without streaming.")
    chunks = [_chunk(head, content), _chunk(head, {}, _reason(trajectory))]
    if usage:
        fields = {**_head(head, "chat.completion.chunk"), "choices": [], "usage": _usage(trajectory)}
        chunks.append(ChatCompletionChunk.model_validate(fields))
    return chunks


def _content(trajectory: Trajectory, cited: Sequence[Citation]) -> dict[str, Any]:
    answer = trajectory.answer
    if answer is None:
        return {"content": None, "refusal": no_answer(trajectory)}
    return {"content": answer, "annotations": [_url_citation(one, answer) for one in cited]}


def _url_citation(citation: Citation, answer: str) -> dict[str, Any]:
    """Chat completions know citations of addresses alone: a document's is `corpus:` and its id."""
    fields = annotation(citation, answer)
    known = {name: fields[name] for name in ("start_index", "end_index", "title")}
    more = {name: fields[name] for name in ("status", "passage", "search", "rank", "score")}
    url = f"corpus:{quote(citation.document.id, safe='')}"
    return {"type": "url_citation", "url_citation": {**known, "url": url, "id": citation.document.id, **more}}


def _reason(trajectory: Trajectory) -> str:
    return "length" if trajectory.answer is None and (trajectory.truncated or trajectory.forced_final) else "stop"


def _usage(trajectory: Trajectory) -> dict[str, int]:
    written = trajectory.num_actions
    read = trajectory.num_tokens - written
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _chunk(head: Head, delta: dict[str, Any], reason: str | None = None) -> ChatCompletionChunk:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
    return ChatCompletionChunk.model_validate({**_head(head, "chat.completion.chunk"), "choices": [choice]})


def _head(head: Head, kind: str) -> dict[str, Any]:
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model}
