"""The model's own way (`rollout.dialogue = "template"`): its chat template writes the tools, calls and results.

How a call is written is learned from the template, by one that it is given to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from calibadv.rollout.chat_template import Message, messages_of, parts_at
from calibadv.rollout.dialogues.call_syntax import CallSyntax, learned
from calibadv.rollout.dialogues.chat import ChatDialogue
from calibadv.rollout.dialogues.chat_writer import PROBE, think
from calibadv.rollout.protocols import Call

_THOUGHT = "Nairobi"
# A template writes a thought that stands in a field of its own, or in the content, or none.
_FIELDS = ("reasoning_content", "thinking", "content")


@dataclass(frozen=True, slots=True)
class _Learned:
    """What one call shows of a template."""

    syntax: CallSyntax
    end: str  # behind the call
    field: str | None  # of a message, in which thoughts are kept


class TemplateDialogue(ChatDialogue):
    """Tools, calls and results as the chat template writes them."""

    @property
    def syntax(self) -> CallSyntax:
        return self._learned.syntax

    @property
    def call_end(self) -> str:
        return self._learned.end

    @property
    def keeps_thoughts(self) -> bool:
        return self._learned.field is not None

    @property
    def given_tools(self) -> Sequence[Mapping[str, Any]]:
        return self.tools

    def head(self, content: str) -> list[Message]:
        return messages_of(content, self.system)

    def turn(self, thought: str, calls: Sequence[Call]) -> Message:
        return _message(thought, calls, self._learned.field)

    def replies(self, texts: Sequence[str], calls: Sequence[Call]) -> list[Message]:
        return [
            {"role": "tool", "name": call.tool, "tool_call_id": _id(number), "content": text}
            for number, (text, call) in enumerate(zip(texts, calls, strict=True))
        ]

    @cached_property
    def _learned(self) -> _Learned:
        head = self.head("Lisbon")
        before = self.written(head, opened=True)
        for field in (*_FIELDS, None):
            text = self.written([*head, _message(_THOUGHT if field else "", [PROBE], field)])
            if field and _THOUGHT not in text:
                continue
            begins = parts_at(before, text)
            if field:
                closed = text.find("</think>", text.index(_THOUGHT))
                if closed < 0 or "<think>" not in text[: text.index(_THOUGHT)]:
                    said = text[begins : text.index(_THOUGHT) + len(_THOUGHT)]
                    raise ValueError(f"it writes a thought as {said!r}, expected it between <think> and </think>")
                begins = closed + len("</think>")
            if (found := learned(text, PROBE, begins, self.plain_end)) is None:
                raise ValueError(f"it writes a call as {text[begins:]!r}, in which no JSON holds name and arguments")
            syntax, _, end = found
            return _Learned(syntax, text[end:], field)
        raise AssertionError("the last round returns or raises")


def _message(thought: str, calls: Sequence[Call], field: str | None) -> Message:
    written = [
        {
            "type": "function",
            "id": _id(number),
            "function": {"name": call.tool, "arguments": dict(call.arguments)},
        }
        for number, call in enumerate(calls)
    ]
    said: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": written}
    if thought and field:
        said[field] = think(thought) if field == "content" else thought
    return said


def _id(number: int) -> str:
    return f"call{number:05}"  # nine letters and digits, on which Mistral's templates insist
