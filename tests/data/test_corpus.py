"""Corpora: every format on small files, ids, every error."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from calibadv.data.corpus import load_corpus, passage_id
from calibadv.data.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_title_text_list_gets_hashed_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", json.dumps([{"title": "A", "text": "One."}, {"title": "A", "text": "Two."}]))
    first, second = load_corpus(path)
    assert first.id == passage_id("A", "One.") != second.id
    assert (first.title, first.text) == ("A", "One.")


def test_titles_with_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", json.dumps({"A": ["One.", " Two."], "B": ["Three.", "Four."]}))
    assert [(d.title, d.text) for d in load_corpus(path)] == [("A", "One. Two."), ("B", "Three. Four.")]


def test_jsonl_with_ids(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.jsonl", '{"id": 7.0, "title": "A", "text": "One."}\n{"id": "x", "title": "B", "text": "T"}'
    )
    assert [d.id for d in load_corpus(path)] == ["7", "x"]


def test_wiki_18_contents(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", json.dumps({"id": "0", "contents": '"A "quoted" title"\nOne.\nTwo.'}))
    (document,) = load_corpus(path)
    assert (document.title, document.text) == ('A "quoted" title', "One.\nTwo.")


def test_white_space_does_not_change_an_id() -> None:
    assert passage_id("A", "One  two.\n") == passage_id("A ", "One two.")
    assert passage_id("A", "B C") != passage_id("A B", "C")


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", json.dumps({"id": "0", "title": "A", "text": "a\u2028b"}, ensure_ascii=False))
    assert load_corpus(path)[0].text == "a\u2028b"


def test_a_repeated_passage_is_kept_once_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "c.json", json.dumps([{"title": "A", "text": "One."}] * 3))
    with caplog.at_level(logging.WARNING):
        assert len(load_corpus(path)) == 1
    assert "left out 2 passages" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.json", "{}", "no records"),
        ("c.json", '[{"title": "A"', "line 1, row 1: malformed JSON"),
        ("c.json", '[{"title": "A"}]', "row 1: no key 'text'"),
        ("c.json", '[{"text": "A"}]', "row 1: no key 'title'"),
        ("c.json", '[{"title": "A", "text": ""}]', "row 1: 'text' is blank"),
        ("c.json", '{"A": [1]}', "the sentences of 'A' are [1]"),
        ("c.json", '{"A": [" "]}', "the sentences of 'A' are [' ']"),
        ("c.jsonl", '{"id": "0", "contents": "no title"}', "line 1: 'contents' is 'no title'"),
        ("c.jsonl", '{"id": [], "title": "A", "text": "B"}', "line 1: the id is []"),
        (
            "c.jsonl",
            '{"id": "0", "title": "A", "text": "B"}\n{"id": "0", "title": "C", "text": "D"}',
            "line 2: id '0' was already used in",
        ),
    ],
)
def test_errors_name_the_place_and_the_value(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        load_corpus(write(tmp_path / name, text))
    assert said in str(caught.value)
    assert "; expected " in str(caught.value)
