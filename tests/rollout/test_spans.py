"""Which tokens wrote a piece of text."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibadv.rollout.spans import token_span
from calibadv.tags import answer_characters
from calibadv.types import IntArray

PIECES = ["So", ".</think>", "<ans", "wer>A", "da", "</answer", ">", "\n", ""]


def text_of(ids: IntArray) -> str:
    return "".join(PIECES[i] for i in ids)


def test_the_span_holds_every_token_that_writes_some_of_it() -> None:
    ids = np.array([0, 1, 2, 3, 4, 5, 6, 8])
    characters = answer_characters(text_of(ids))
    assert characters is not None
    assert token_span(ids, *characters, text_of) == (2, 7)  # the empty token after it has no part


def test_a_token_across_an_edge_belongs_to_it() -> None:
    text = text_of(np.array([0, 1, 2, 3, 4, 5, 6]))
    start = text.index("Ada")
    assert token_span(np.array([0, 1, 2, 3, 4, 5, 6]), start, start + 3, text_of) == (3, 5)


@given(st.lists(st.integers(0, len(PIECES) - 2), min_size=1, max_size=30), st.data())
def test_the_tokens_of_a_span_write_it_and_one_fewer_would_not(chosen: list[int], data: st.DataObject) -> None:
    ids = np.array(chosen)
    text = text_of(ids)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    first, last = token_span(ids, start, end, text_of)
    assert len(text_of(ids[:first])) <= start < len(text_of(ids[: first + 1]))
    assert len(text_of(ids[: last - 1])) < end <= len(text_of(ids[:last]))
