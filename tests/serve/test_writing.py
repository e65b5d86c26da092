"""A turn told while it is written: letter by letter, and nothing of it is a tag, a call or half a character."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.rollout.dialogues.in_tags import InTags
from calibadv.rollout.protocols import Generation, Said, Sampling, StopReason
from calibadv.tags import think_text, up_to_closing_tag
from calibadv.types import IntArray, TurnKind
from serve.agent.news import Written
from serve.agent.writing import Turn, joined, told_as_written

PIECES = ["<think>", "</think>", "<answer>", "</answer>", "<search>", "</search>", "<", " ", "a", "é€", "</", "swer>"]
NORMAL = "<think> who is she? </think>\n<answer> Zoë, in Łódź </answer>"


def text_of(ids: IntArray) -> str:
    return bytes(ids.tolist()).decode("utf-8", "replace")


def told(text: str, *, opened: bool = False, marks: tuple[str, ...] = (), chunk: int = 1) -> list[tuple[str, str]]:
    turn, ids = Turn(text_of, opened=opened, marks=marks), list(text.encode())
    return [turn.more(ids[n : n + chunk]) for n in range(0, len(ids), chunk)]


def whole(pieces: list[tuple[str, str]]) -> tuple[str, str]:
    return "".join(thought for thought, _ in pieces), "".join(answer for _, answer in pieces)


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_a_well_formed_turn_is_told_as_it_is_however_its_tags_are_split(chunk: int) -> None:
    pieces = told(NORMAL, chunk=chunk)
    assert whole(pieces) == ("who is she?", "Zoë, in Łódź")
    assert chunk > 5 or len([answer for _, answer in pieces if answer]) > 2


def test_a_thought_that_the_prompt_has_opened_needs_no_tag() -> None:
    assert whole(told(NORMAL.removeprefix("<think>"), opened=True)) == ("who is she?", "Zoë, in Łódź")
    assert whole(told(NORMAL.removeprefix("<think>"))) == ("", "")


@pytest.mark.parametrize(
    ("text", "marks", "expected"),
    [
        ("<think> t </think><search> Ada </search>", (), ("t", "")),
        ("<think> t </think> So: <answer> Oslo </answer>", (), ("t", "")),  # told whole, at its end
        ("<answer> Oslo <search> Ada </search>", (), ("", "Oslo")),
        ("<think> a < b, x <tool_call>{", (), ("a < b, x", "")),
        ("<think> t [TOOL_CALLS][{", ("[TOOL_CALLS]",), ("t", "")),
        ("<think> t [TOOL", ("[TOOL_CALLS]",), ("t", "")),
        ("<answer> Oslo<|im_end|>", (), ("", "Oslo")),
        ("<think> one <answer> x </think><answer> y </answer>", (), ("one", "")),  # read otherwise than it looks
    ],
)
def test_calls_queries_and_what_is_malformed_are_held_back(
    text: str, marks: tuple[str, ...], expected: tuple[str, str]
) -> None:
    assert whole(told(text, marks=marks)) == expected


class _Writer(InTags):
    prefill = ""

    def text(self, ids: IntArray) -> str:
        return text_of(ids)


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.integers(1, 4))
def test_what_is_told_begins_what_the_dialogue_reads_and_has_no_tag(pieces: list[str], chunk: int) -> None:
    text = up_to_closing_tag("".join(pieces))
    ids = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
    said: Said = _Writer().said(Generation(ids, np.zeros(len(ids), np.float32), StopReason.TAG))
    thought, answer = whole(told(text, chunk=chunk))
    assert "\ufffd" not in thought + answer
    assert "<a" not in thought + answer
    assert "</" not in answer
    if "</think>" in text and "<think>" not in text.partition("<think>")[2].partition("</think>")[0]:
        assert think_text(said.text).startswith(thought)
    if said.kind is TurnKind.ANSWER and said.answer is not None:
        assert said.answer.startswith(answer)


async def test_an_engine_that_tells_tokens_in_its_own_thread_is_heard_in_the_event_loop() -> None:
    news: list[Written] = []

    async def engine(prompt_ids: IntArray, sampling: Sampling) -> Generation:  # noqa: ARG001
        ids = list(NORMAL.encode())
        assert sampling.heard is not None
        await asyncio.to_thread(lambda: [sampling.heard and sampling.heard([one]) for one in ids[:-1]])
        return Generation(np.array(ids), np.zeros(len(ids), np.float32), StopReason.TAG)

    generate = told_as_written(engine, text_of, news.append)
    for _ in range(2):
        await generate(np.array(list(b"Who?")), Sampling(100))
    assert joined(news) == tuple(Written(turn, "who is she?", "Zoë, in Łódź") for turn in (0, 1))
