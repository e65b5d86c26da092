"""How a dialogue of chat messages is written: what the policy reads, token-exact, in its model's chat template.

Of a rendering only what stands behind the policy's turn is encoded. It is the difference of two renderings of which one
begins with the other; where it does not, `chat_problems` says at which place they part, and nothing is trained.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from calibadv.rollout.chat_template import ERRORS, Message, parts_at
from calibadv.rollout.dialogues.call_syntax import CallSyntax
from calibadv.rollout.dialogues.in_calls import ANSWERED
from calibadv.rollout.dialogues.tokenized import TokenizedDialogue, within
from calibadv.rollout.protocols import SEARCH, Call, Result
from calibadv.tags import PROMPT_TEMPLATE, TAGS
from calibadv.types import IntArray

SEARCH_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": SEARCH,
        "description": "Returns the passages that fit a query best.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "What to look for."}},
            "required": ["query"],
        },
    },
}
_REASON = "You must conduct reasoning inside <think> and </think> first every time you get new information. "
PROMPT = (
    "Answer the given question. {reason}If you find you lack some knowledge, you can call a tool, as many times as you "
    "want. If you find no further external knowledge needed, you can directly provide the answer inside <answer> and "
    "</answer>, without detailed illustrations. For example, <answer> Beijing </answer>. Question: {question}\n"
)
_CORRECTION = (
    "Error: neither a call nor an answer. To call a tool, write a call as it was shown; to answer, write the answer "
    "between <answer> and </answer>."
)
OPENED = re.compile(r"<think>\s*(?:</think>\s*)?\Z")  # at the end of a generation prompt
# What a template is tried with.
ASKED, THOUGHT, FOUND, SAID = "Lisbon", "Nairobi", "Oslo", "Dakar"
PROBE = Call(SEARCH, {"query": "Quito"})
_CUTS = 8  # a text that was cut may take other tokens: so often it is cut again


@dataclass(frozen=True)
class ChatWriter(TokenizedDialogue):
    """Prompt, calls and results as chat messages; `tools` are JSON schemas, the search's among them."""

    tools: tuple[Mapping[str, Any], ...] = (SEARCH_TOOL,)

    tags: ClassVar[Sequence[str]] = (*TAGS, "tool")

    # ---- what a dialogue of this kind says ----------------------------------------------------------------------

    @abstractmethod
    def head(self, content: str) -> list[Message]:
        """The messages before the first turn."""

    @abstractmethod
    def turn(self, thought: str, calls: Sequence[Call]) -> Message:
        """A turn of the policy's."""

    @abstractmethod
    def replies(self, texts: Sequence[str], calls: Sequence[Call]) -> list[Message]:
        """What the calls are answered with, a text each."""

    @property
    @abstractmethod
    def given_tools(self) -> Sequence[Mapping[str, Any]]:
        """What the template itself is to write of the tools."""

    @property
    @abstractmethod
    def syntax(self) -> CallSyntax:
        """How calls are written. ValueError where that cannot be known."""

    @property
    @abstractmethod
    def keeps_thoughts(self) -> bool:
        """Whether the template writes the thoughts of turns."""

    @property
    @abstractmethod
    def call_end(self) -> str:
        """What the template writes behind a turn with calls, up to the next message."""

    # ---- tokens -------------------------------------------------------------------------------------------------

    def prompt_text(self, question: str) -> str:
        """The messages in the model's chat template, and what opens the first turn."""
        return self.opened(self.written(self.head(self._content(question)), opened=True))

    def turn_text(self, thought: str, *, query: str = "", answer: str = "") -> str:
        """A turn of a demonstration: its think where turns have one, then a call with its end, or an answer."""
        thought = self._clean(thought) if self.thinks else ""
        if query:
            before = OPENED.sub("", self.written(self.head(ASKED), opened=True))
            called = self.turn(thought, [Call(SEARCH, {"query": self._clean(query)})])
            text = self.written([*self.head(ASKED), called])[len(before) :]
            text = f"{text.removesuffix(self.call_end)}{self.call_end.strip()}".lstrip()
        else:
            text = f"{think(thought) if thought else ''}<answer> {self._clean(answer)} </answer>"
        opening = self.opening if text.startswith(self.opening) else self.opening.rstrip()
        return text.removeprefix(opening).lstrip() if "</think>" in opening else text.removeprefix(opening)

    def observed(self, results: Sequence[Result], action_ids: IntArray, max_tokens: int) -> IntArray:
        """Token ids [O <= max_tokens] of the results, up to where the next turn begins; the longest are cut.

        Without the end of the turn where the policy wrote it itself. Raises `NoRoom`.
        """
        texts, tools = [], [result.tool for result in results]
        for result in results:
            text = self._listed(result.documents) if result.text is None else self._harmless(result.text)
            texts.append(text.strip() if result.max_tokens is None else self._first_tokens(text, result.max_tokens))
        ids = self._behind_ids(texts, tools, action_ids)
        for _ in range(_CUTS):
            if len(ids) <= max_tokens:
                return ids
            lengths = [len(self._encode(text)) for text in texts]
            longest = int(np.argmax(lengths))
            texts[longest] = self._first_tokens(texts[longest], max(0, lengths[longest] - len(ids) + max_tokens))
            ids = self._behind_ids(texts, tools, action_ids)
        return within(max_tokens, self._behind_ids([""] * len(texts), tools, action_ids))

    def corrected(self, action_ids: IntArray, max_tokens: int) -> IntArray:
        """Token ids [O] of a result that says what a turn must be."""
        return self.observed([Result(text=_CORRECTION)], action_ids, max_tokens)

    @cached_property
    def opening(self) -> str:
        """What stands before every turn and belongs to it: a think that the template opens, else the prefill."""
        text = self.written(self.head(ASKED), opened=True)
        match = OPENED.search(text)
        return match.group() if match else self.prefill

    @cached_property
    def stop(self) -> tuple[str, ...]:
        """The end of an answer, and what the template ends a turn with."""
        ends = dict.fromkeys(end.strip() for end in (self.call_end, self.plain_end))
        return (ANSWERED, *(end for end in ends if end))

    @cached_property
    def thinks(self) -> bool:
        """Whether each turn begins with a think of the policy's."""
        return "</think>" not in self.opening and self.keeps_thoughts

    # ---- renderings ---------------------------------------------------------------------------------------------

    def written(self, messages: Sequence[Message], *, opened: bool = False) -> str:
        """The messages in the chat template; `opened`: and what opens the next turn."""
        return self._render(messages, opened=opened, tools=self.given_tools)

    def opened(self, text: str) -> str:
        """The text with a turn opened: by the template itself, else by the prefill."""
        return text if OPENED.search(text) else f"{text}{self.prefill}"

    @cached_property
    def plain_end(self) -> str:
        """What the template writes behind a turn without calls."""
        text = self.written([*self.head(ASKED), {"role": "assistant", "content": SAID}])
        return text[text.rindex(SAID) + len(SAID) :]

    def behind(self, texts: Sequence[str], tools: Sequence[str]) -> str:
        """What stands behind a turn that calls these: its end, a text of each, and the opening of the next turn."""
        calls = [replace(PROBE, tool=tool) for tool in tools]
        messages = [*self.head(ASKED), self.turn(THOUGHT if self.keeps_thoughts else "", calls)]
        closed = self.written(messages)
        whole = self.written([*messages, *self.replies(texts, calls)], opened=True)
        if not whole.startswith(closed):
            raise ValueError(f"a result changes what stands before it: {parting(closed, whole)}")
        return self.call_end + self.opened(whole[len(closed) :])

    def _behind_ids(self, texts: Sequence[str], tools: Sequence[str], action_ids: IntArray) -> IntArray:
        ids = self._encode(self.behind(texts, tools))
        for end in self.stop[1:]:
            mark = self._encode(end)
            if np.array_equal(ids[: len(mark)], mark) and np.array_equal(action_ids[-len(mark) :], mark):
                return ids[len(mark) :]
        return ids

    def _first_tokens(self, text: str, tokens: int) -> str:
        return self.text(self._encode(text)[:tokens]).strip()

    @cached_property
    def second_reply(self) -> str:
        """`behind` of one result, in a dialogue that has had one already."""
        thought = THOUGHT if self.keeps_thoughts else ""
        turn = self.turn(thought, [PROBE])
        reply = self.replies([FOUND], [PROBE])
        messages = [*self.head(ASKED), turn, *reply, turn]
        closed, whole = self.written(messages), self.written([*messages, *reply], opened=True)
        return self.call_end + self.opened(whole.removeprefix(closed))

    @cached_property
    def takes_several(self) -> bool:
        """Whether one turn may hold several calls."""
        try:
            return bool(self.behind([FOUND, FOUND], [SEARCH, SEARCH]))
        except ERRORS:
            return False

    def _content(self, question: str) -> str:
        if self.template != PROMPT_TEMPLATE:
            return super()._content(question)
        prompt = PROMPT.replace("{reason}", _REASON if self.thinks else "")
        return prompt.replace("{question}", self._harmless(question))


def think(thought: str) -> str:
    """A thought as models write it that think."""
    return f"<think>\n{thought}\n</think>\n\n"


def parting(before: str, after: str) -> str:
    """The place from which on `after` no longer reads as `before`."""
    at = parts_at(before, after)
    while at and (before[at - 1].isalnum() or before[at - 1] in "<|/_"):
        at -= 1  # to where a word or a tag begins
    behind, new, old = before[max(0, at - 30) : at], after[at : at + 30], before[at : at + 30]
    return f"behind {behind!r} it writes {new!r} in place of {old!r}"
