"""The dialogue in tags (`rollout.dialogue = "tags"`): <search>, <information> and <answer>, the paper's.

Prompt and observation are Search-R1's and CalibAdv's published strings, so that results compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibadv.rollout.chat_template import Problem, messages_of, problems
from calibadv.rollout.dialogues.in_tags import InTags
from calibadv.rollout.dialogues.tokenized import TokenizedDialogue, within
from calibadv.tags import PRE_THINK, RETRY_MESSAGE
from calibadv.types import Document, IntArray


@dataclass(frozen=True)
class TagsDialogue(TokenizedDialogue, InTags):
    """Writes prompts and observations in tags. `prefill` ends the prompt and every observation."""

    def prompt_text(self, question: str) -> str:
        """The messages in the model's chat template, the generation prompt and the prefill, as text.

        A template that ends the generation prompt with the prefill itself is not given a second one.
        """
        text = self._render(messages_of(self._content(question), self.system), opened=True)
        return text if self.prefill and text.rstrip().endswith(self.prefill) else f"{text}{self.prefill}"

    def turn_text(self, thought: str, *, query: str = "", answer: str = "") -> str:
        """A turn of a demonstration: its think, then a search or an answer."""
        opening = "" if self.prefill else PRE_THINK
        action = f"<search> {self._clean(query)} </search>" if query else f"<answer> {self._clean(answer)} </answer>"
        return f"{opening}{self._clean(thought)}</think>\n{action}"

    def observation_ids(self, documents: Sequence[Document], max_tokens: int) -> IntArray:
        """Token ids [O <= max_tokens] of the documents between information tags, then the prefill.

        Too long a body is cut at its end; the closing tag always stays. Raises `NoRoom`.
        """
        open_text, close_text = "\n\n<information>", f"</information>\n\n{self.prefill}"
        body = self._listed(documents)
        whole = self._encode(f"{open_text}{body}{close_text}")
        if len(whole) <= max_tokens:
            return whole
        head, tail = self._encode(open_text), self._encode(close_text)
        room = max_tokens - len(within(max_tokens, np.concatenate([head, tail])))
        return np.concatenate([head, self._encode(body)[:room], tail])

    def retry_ids(self) -> IntArray:
        """Token ids of Search-R1's correction after a void turn (`on_void_turn = "retry"`), then the prefill."""
        return self._encode(f"{RETRY_MESSAGE}{self.prefill}")

    def problems(self) -> list[Problem]:
        """What is wrong with the chat template for this dialogue."""
        return problems(self.tokenizer, system=self.system, prefill=self.prefill, arguments=self.arguments)
