"""Questions that two sets share: found whatever their case, quotes and blanks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.data.overlap import Shared, normalised_question, shared_questions


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("Who  sang\t'Hello'?", "who sang hello"),
        ("Who sang ‘Hello’ ?", "who sang hello"),
        ("ＷＨＯ sang HELLO", "who sang hello"),
        ("Is the U.S. in it?", "is the u s in it"),
        ("???", "???"),
    ],
)
def test_case_punctuation_and_width_do_not_count(text: str, normalised: str) -> None:
    assert normalised_question(text) == normalised


def test_articles_count() -> None:
    assert normalised_question("Who is the one?") != normalised_question("Who is one?")


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalised_question(text)
    assert normalised_question(once) == once


def test_each_shared_question_is_named_once_with_the_first_it_is_like() -> None:
    train = [("t/1", "Who sang?"), ("t/2", "Where?"), ("t/3", "who sang")]
    test = [("e/1", "WHO sang!"), ("e/2", "Who sang?"), ("e/3", "When?")]
    assert shared_questions(train, test) == [Shared("t/1", "e/1", "Who sang?"), Shared("t/3", "e/1", "who sang")]
    assert shared_questions(train, []) == []
