"""What every dialogue over a chat template has: its settings, text as tokens, and text that cannot steer."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from calibadv.rollout.chat_template import ERRORS, Message, Problem, rendered
from calibadv.rollout.protocols import NoRoom
from calibadv.sendable import sendable
from calibadv.tags import PROMPT_TEMPLATE, TAGS, neutralise
from calibadv.types import Document, IntArray

_MARKUP = re.compile(r"[<\[{|＜].*[>\]}|＞]", re.DOTALL)  # how a control token is written
_DAYS = ("2001-02-03", "2036-11-28")  # that differ in every part of a date


@dataclass(frozen=True)
class TokenizedDialogue(ABC):
    """Writes text as token ids with one tokenizer.

    `prefill` (PreThink, CalibAdv sec. 3.4) stands before every turn, so that it is conditioned on and never trained.
    `template` is the user's message, `system` one before it; `date`: the day that the chat template is told, "" =
    today; `arguments`: what it is given beside the messages, e.g. enable_thinking.
    """

    tokenizer: PreTrainedTokenizerBase
    prefill: str = ""
    template: str = PROMPT_TEMPLATE
    system: str = ""
    date: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    tags: ClassVar[Sequence[str]] = TAGS  # that a question or a document must not write

    def __post_init__(self) -> None:
        if "{question}" not in self.template:
            raise ValueError(f"the prompt template must contain '{{question}}', got {self.template!r}")
        if self.tokenizer.chat_template is None:
            name = getattr(self.tokenizer, "name_or_path", "?")
            raise ValueError(
                f"the tokenizer of {name!r} has no chat template: use an instruct model, "
                "or set `chat_template` in its tokenizer_config.json"
            )

    @abstractmethod
    def prompt_text(self, question: str) -> str:
        """The messages in the model's chat template, and what opens the first turn."""

    @abstractmethod
    def turn_text(self, thought: str, *, query: str = "", answer: str = "") -> str:
        """What the policy writes in a turn that searches, or else answers, behind what opens the turn."""

    @abstractmethod
    def problems(self) -> list[Problem]:
        """Everything that is wrong with the chat template for this dialogue."""

    def prompt_ids(self, question: str) -> IntArray:
        """Token ids [P] of `prompt_text`."""
        return self._encode(self.prompt_text(question))

    def writes_date(self) -> bool:
        """Whether a prompt depends on the day on which it is made."""
        try:
            first, second = (replace(self, date=day).prompt_text("Lisbon") for day in _DAYS)
        except ERRORS:
            return False
        return first != second

    def text(self, ids: IntArray) -> str:
        """The text of sampled ids, for reading and parsing only."""
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        """Special tokens and added ones that look like one (`<tool_call>`); an added word is a word of its field."""
        added = self.tokenizer.added_tokens_decoder.values()
        names = {str(token) for token in added if token.special or _MARKUP.fullmatch(str(token).strip())}
        names |= set(self.tokenizer.all_special_tokens)
        tags = {f"<{slash}{tag}>" for tag in self.tags for slash in ("", "/")}
        return tuple(sorted((name for name in names - tags if name), key=len, reverse=True))

    def _content(self, question: str) -> str:
        """The user's message."""
        return self.template.replace("{question}", self._harmless(question))

    def _listed(self, documents: Sequence[Document]) -> str:
        return "".join(
            f"Doc {i}(Title: {self._clean(doc.title)}) {self._clean(doc.text)}\n"
            for i, doc in enumerate(documents, start=1)
        )

    def _clean(self, text: str) -> str:
        return self._harmless(" ".join(text.split()))

    def _harmless(self, text: str) -> str:
        return neutralise(text, self._control_tokens, self.tags)

    def _render(
        self, messages: Sequence[Message], *, opened: bool = False, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        return rendered(self.tokenizer, messages, opened=opened, date=self.date, arguments=self.arguments, tools=tools)

    def _encode(self, text: str) -> IntArray:
        return np.asarray(self.tokenizer.encode(sendable(text), add_special_tokens=False), dtype=np.int64)


def within(max_tokens: int, ids: IntArray) -> IntArray:
    """The observation as it is. Raises `NoRoom` where it is longer."""
    if len(ids) > max_tokens:
        raise NoRoom(
            f"an observation needs at least {len(ids)} tokens, the limit is {max_tokens}: raise "
            "--rollout.max_observation_tokens"
        )
    return ids
