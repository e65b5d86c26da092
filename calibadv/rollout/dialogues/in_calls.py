"""How a turn of calls is read: a call, as the model's template writes it, or <answer>, as in the dialogue in tags.

F1 needs to know which words are the answer, the figures of all dialogues compare, and a turn that neither calls nor
answers stays one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from calibadv.rollout.dialogues.call_syntax import CallSyntax
from calibadv.rollout.protocols import Generation, Said, StopReason, query_of
from calibadv.tags import TAGS
from calibadv.types import IntArray, Turn, TurnKind

ANSWERED = "</answer>"
_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>")
_THINK = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class _Writer(Protocol):
    @property
    def stop(self) -> tuple[str, ...]: ...
    @property
    def syntax(self) -> CallSyntax: ...
    @property
    def opening(self) -> str: ...
    @property
    def thinks(self) -> bool: ...
    @property
    def takes_several(self) -> bool: ...
    def text(self, ids: IntArray) -> str: ...


class InCalls:
    """Reads turns of calls, for any writer of prompts and results."""

    def said(self: _Writer, generation: Generation) -> Said:
        """The turn's calls, or its answer, whichever comes first behind its thoughts."""
        ids = generation.ids[:-1] if generation.stop is StopReason.EOS else generation.ids
        text = self.text(ids)
        for end in self.stop[1:]:
            text = text.rstrip().removesuffix(end) if text.rstrip().endswith(end) else text
        if generation.stop is StopReason.TAG and ANSWERED in text:
            text = text[: text.rindex(ANSWERED) + len(ANSWERED)]  # its last token may hold more
        body = text.rfind("</think>") + len("</think>") if "</think>" in text else 0
        written = self.syntax.read(text[body:])
        answer = _ANSWER.search(text, body)
        if answer and not (written and body + written[0].start < answer.start()):
            return Said(TurnKind.ANSWER, text, answer=answer.group(1).strip(), answer_characters=answer.span())
        calls = tuple(each.call for each in (written if self.takes_several else written[:1]))
        if not calls:
            return Said(TurnKind.VOID, text)
        return Said(TurnKind.SEARCH if any(map(query_of, calls)) else TurnKind.CALL, text, calls)

    def format_reward(self: _Writer, turns: Sequence[Turn], *, require_search: bool) -> float:
        """1 for think + calls, …, think + answer, with only white space between; a search among them if required.

        Without thoughts where the template writes none.
        """
        if not turns or (require_search and not any(turn.kind is TurnKind.SEARCH for turn in turns)):
            return 0.0
        *earlier, last = turns
        calls = all(turn.kind in (TurnKind.SEARCH, TurnKind.CALL) for turn in earlier)
        return float(calls and last.kind is TurnKind.ANSWER and all(_sound(self, turn) for turn in turns))


def _sound(writer: _Writer, turn: Turn) -> bool:
    text = f"{writer.opening}{turn.text}"
    thought, body = "", text
    if writer.thinks or writer.opening:
        match = _THINK.fullmatch(text)
        if match is None:
            return False
        thought, body = match.groups()
    if _TAG.search(thought) or (writer.syntax.opener and writer.syntax.opener in thought):
        return False
    if turn.kind is TurnKind.ANSWER:
        answer = re.fullmatch(rf"\s*{_ANSWER.pattern}\s*", body, re.DOTALL)
        return answer is not None and not _TAG.search(answer.group(1))
    for each in reversed(writer.syntax.read(body)):
        body = body[: each.start] + body[each.end :]
    return not body.strip()
