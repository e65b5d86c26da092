"""Passages: no word is lost, none crosses a heading, neighbours overlap, and each knows its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.data.documents.blocks import Block
from calibadv.data.documents.splitting import Passage, Window, passages, windows

WORDS = [f"w{number}" for number in range(30)]


def test_a_long_paragraph_is_cut_into_windows_that_overlap() -> None:
    cut = list(windows([Block(" ".join(WORDS), "page=1")], Window(words=12, overlap=4)))
    assert cut == [
        (" ".join(WORDS[0:12]), "page=1"),
        (" ".join(WORDS[8:20]), "page=1"),
        (" ".join(WORDS[16:28]), "page=1"),
        (" ".join(WORDS[24:30]), "page=1"),
    ]


def test_a_passage_ends_and_begins_with_sentences_where_it_can() -> None:
    text = "a a a a a a a a a. b b b c! d d d d d d d d d d."
    assert [text for text, _ in windows([Block(text, "line=1")], Window(words=12, overlap=5))] == [
        "a a a a a a a a a.",
        "a a a a a. b b b c!",  # the overlap has no sentence that begins in it
        "b b b c! d d d d d d d d",
        "d d d d d d d.",
    ]


def test_a_passage_begins_where_its_first_words_stand() -> None:
    blocks = [Block(" ".join(WORDS[:8]), "page=1"), Block(" ".join(WORDS[8:16]), "page=2")]
    cut = windows(blocks, Window(words=8, overlap=0))
    assert [place for _, place in cut] == ["page=1", "page=2"]


def test_headings_go_into_titles_and_part_passages() -> None:
    blocks = [
        Block("before", "line=1"),
        Block("A", "line=2", 1),
        Block("B", "line=3", 2),
        Block("of b", "line=4"),
        Block("C", "line=5", 2),
        Block("of c", "line=6"),
        Block("D", "line=7", 1),
        Block("E", "line=8", 1),
        Block("of e", "line=9"),
        Block("word " * 40, "line=10", 3),  # a paragraph in the style of a heading
    ]
    found = list(passages(blocks, Window()))
    assert found[:5] == [
        Passage((), "before", "line=1"),
        Passage(("A", "B"), "of b", "line=4"),
        Passage(("A", "C"), "of c", "line=6"),
        Passage(("D",), "D", "line=7"),  # nothing below it
        Passage(("E",), f"of e\n{('word ' * 40).strip()}", "line=9"),
    ]


def test_characters_count_where_there_are_no_words() -> None:
    cut = [text for text, _ in windows([Block("東京は日本の首都である。" * 2, "line=1")], Window(words=12, overlap=0))]
    assert cut == ["東京は日本の首都である。"] * 2


@given(
    st.lists(st.text("ab. 東\n", max_size=60), max_size=5),
    st.integers(8, 20).flatmap(lambda words: st.tuples(st.just(words), st.integers(0, words // 2))),
)
def test_passages_follow_each_other_without_a_gap(texts: list[str], size: tuple[int, int]) -> None:
    bare = ["".join(text.split()) for text, _ in windows([Block(text, "line=1") for text in texts], Window(*size))]
    whole = "".join("\n".join(texts).split())
    reached = {0}  # how far the passages so far can reach; a text of few letters has them at several places
    for passage in bare:
        assert passage
        starts = {at for at in range(len(whole)) if whole.startswith(passage, at)}
        reached = {at + len(passage) for at in starts if any(at <= end < at + len(passage) for end in reached)}
    assert not whole or len(whole) in reached
    if not size[1]:
        assert "".join(bare) == whole


def test_a_window_that_would_not_move_is_refused() -> None:
    for words, overlap in ((7, 0), (10, 6), (10, -1)):
        with pytest.raises(ValueError, match=f"--words {words} and --overlap {overlap}: expected at least 8 words"):
            Window(words, overlap)
