"""How a turn in tags is read: <search> calls the search, <answer> answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from calibadv.rewards.format import format_reward
from calibadv.rollout.protocols import SEARCH, Call, Generation, Result, Said, StopReason
from calibadv.tags import answer_characters, parse_action, up_to_closing_tag
from calibadv.types import Document, IntArray, Turn, TurnKind


class _Writer(Protocol):
    @property
    def prefill(self) -> str: ...
    def text(self, ids: IntArray) -> str: ...
    def observation_ids(self, documents: Sequence[Document], max_tokens: int) -> IntArray: ...
    def retry_ids(self) -> IntArray: ...


class InTags:
    """Reads turns in tags, for any writer of prompts and observations."""

    stop = ("</search>", "</answer>")

    def said(self: _Writer, generation: Generation) -> Said:
        """The first complete search or answer of the turn."""
        text = self.text(generation.ids)
        if generation.stop is StopReason.TAG:
            text = up_to_closing_tag(text)
        action = parse_action(text)
        calls = (Call(SEARCH, {"query": action.query}),) if action.query is not None else ()
        characters = answer_characters(text) if action.kind is TurnKind.ANSWER else None
        return Said(action.kind, text, calls, action.answer, characters)

    def observed(self: _Writer, results: Sequence[Result], action_ids: IntArray, max_tokens: int) -> IntArray:  # noqa: ARG002
        """[O <= max_tokens] The documents of the turn's one search."""
        (result,) = results
        return self.observation_ids(result.documents, max_tokens)

    def corrected(self: _Writer, action_ids: IntArray, max_tokens: int) -> IntArray:  # noqa: ARG002
        """[O] Search-R1's correction."""
        return self.retry_ids()

    def format_reward(self: _Writer, turns: Sequence[Turn], *, require_search: bool) -> float:
        """1 for think + search, …, think + answer."""
        return format_reward(turns, prefill=self.prefill, require_search=require_search)
