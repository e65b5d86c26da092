"""A turn as it is written: its thought, and then its answer, as far as nothing can turn either into something else.

Only a well-formed turn is told early: [<think>] thought </think> <answer> answer </answer>. Tags, calls and whatever
could become one are held back; so is a character whose bytes are not all there. What is held back is told with the
whole turn, which is read as ever: tokens are sampled and parsed as if nobody had listened.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count

import numpy as np

from calibadv.rollout.protocols import GenerateFn, Generation, Sampling, Step
from calibadv.tags import TAGS
from calibadv.types import IntArray, Trajectory
from serve.agent.news import Written

THINK, THOUGHT, ANSWER = "<think>", "</think>", "<answer>"
HALF = "\ufffd"  # what a character becomes whose bytes are not all there
_MARKUP = re.compile(r"<(?!\s)")  # of a tag, a call or a control token, begun or whole: nothing from there on is told
_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>")
_REACH = 16  # tokens of a prompt's end that are decoded: more than `<think>` and white space have

Heard = Written | Step | Trajectory
"""What a rollout tells of itself."""


def told_as_written(
    generate: GenerateFn, text: Callable[[IntArray], str], tell: Callable[[Written], None], marks: Sequence[str] = ()
) -> GenerateFn:
    """The same function for one rollout; `tell` hears of each of its turns while it is sampled, in the event loop.

    `text` decodes ids. `marks`: what begins a call in this dialogue, beside tags.
    """
    turns = count()

    async def told(prompt_ids: IntArray, sampling: Sampling) -> Generation:
        loop, index = asyncio.get_running_loop(), next(turns)
        turn = Turn(text, opened=text(prompt_ids[-_REACH:]).rstrip().endswith(THINK), marks=marks)

        def read(ids: Sequence[int]) -> None:
            thought, answer = turn.more(ids)
            if thought or answer:
                tell(Written(index, thought, answer))

        def heard(ids: Sequence[int]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(read, ids)

        return await generate(prompt_ids, replace(sampling, heard=heard))

    return told


def joined(news: Iterable[Heard]) -> tuple[Heard, ...]:
    """The same news; pieces of text of one turn that follow each other are one."""
    together: list[Heard] = []
    for one in news:
        last = together[-1] if together else None
        if isinstance(one, Written) and isinstance(last, Written) and one.index == last.index:
            together[-1] = Written(one.index, last.thought + one.thought, last.answer + one.answer)
        else:
            together.append(one)
    return tuple(together)


class Turn:
    """Text of one turn. `opened`: its prompt ends within a thought."""

    def __init__(self, text: Callable[[IntArray], str], *, opened: bool = False, marks: Sequence[str] = ()) -> None:
        self._decode, self._opened, self._marks = text, opened, [mark for mark in marks if mark]
        self._ids: list[int] = []
        self._begins = self._read = 0  # ids from here are decoded; text of those up to there is known
        self._text = self._thought = self._answer = ""  # all that is known; what was told of it

    def more(self, ids: Sequence[int]) -> tuple[str, str]:
        """What can be told of thought and answer after these tokens, beside what was."""
        self._ids += ids
        before, now = self._decoded(self._read), self._decoded(len(self._ids))
        if now.endswith(HALF) or len(now) <= len(before):
            return "", ""
        self._text += now[len(before) :]
        self._begins, self._read = self._read, len(self._ids)
        thought, answer = self._parts()
        told = thought[len(self._thought) :], answer[len(self._answer) :]
        self._thought, self._answer = self._thought + told[0], self._answer + told[1]
        return told

    def _decoded(self, end: int) -> str:
        """A few tokens: how one decodes may depend on the one before it, and on no more."""
        return self._decode(np.asarray(self._ids[self._begins : end], dtype=np.int64)) if end > self._begins else ""

    def _parts(self) -> tuple[str, str]:
        """Thought and answer, as far as they can be told."""
        rest, thought = self._text.lstrip(), ""
        if self._opened or rest.startswith(THINK):
            thought, closed, rest = rest.removeprefix(THINK).partition(THOUGHT)
            if not closed or _TAG.search(thought) or any(mark in thought for mark in self._marks):
                return self._safe(thought), ""
            thought, rest = thought.strip(), rest.lstrip()
        return thought, self._safe(rest.removeprefix(ANSWER)) if rest.startswith(ANSWER) else ""

    def _safe(self, text: str) -> str:
        """`text` up to what is, or may become, markup or a call; without white space around it."""
        ends = [match.start() for match in [_MARKUP.search(text)] if match]
        for mark in self._marks:
            ends += [at for at in [text.find(mark)] if at >= 0]
            ends += [len(text) - n for n in range(1, len(mark)) if text.endswith(mark[:n])]
        return text[: min(ends, default=len(text))].strip()
