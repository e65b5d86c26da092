"""The corpus store: what a list of documents gives, by row and by id, however it was built."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibadv.data import corpus_store, store_files
from calibadv.data.corpus import load_corpus
from calibadv.data.corpus_store import CorpusStore, build_store
from calibadv.data.errors import DataError, RepeatedId
from calibadv.data.gold_passages import gold_in_corpus, training_questions
from calibadv.data.passages import passage_id
from calibadv.rewards.gold_match import GoldNeed
from calibadv.types import Document, Question

DOCUMENTS = [Document(f"id{i}", f"Títle {i}", f"Text “{i}”.\n" * (i % 3)) for i in range(100)]


def derived(title: str, text: str) -> Document:
    return Document(passage_id(title, text), title, text)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CorpusStore:
    return build_store(iter(DOCUMENTS), tmp_path_factory.mktemp("corpus") / "store", run_rows=7)


def test_it_is_the_sequence_that_was_stored(store: CorpusStore) -> None:
    assert len(store) == 100
    assert list(store) == DOCUMENTS
    assert [store[row] for row in range(100)] == DOCUMENTS
    assert store[-1] == DOCUMENTS[-1]
    assert store[np.int64(3)] == DOCUMENTS[3]
    assert store[5:50:7] == DOCUMENTS[5:50:7]
    assert store[::-1] == DOCUMENTS[::-1]
    assert list(reversed(store)) == DOCUMENTS[::-1]
    for row in (100, -101):
        with pytest.raises(IndexError, match=f"row {row} of"):
            store[row]


def test_every_id_is_found_and_no_other(store: CorpusStore) -> None:
    assert [store.row_of(document.id) for document in DOCUMENTS] == list(range(100))
    assert store.by_id("id42") == DOCUMENTS[42]
    assert DOCUMENTS[7] in store
    assert Document("id7", "Other", "text") not in store
    for unknown in ("", "id100", "ID1", "id1 ", "\ud800"):
        assert not store.has_id(unknown)
        with pytest.raises(KeyError, match="no document"):
            store.by_id(unknown)


ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
documents = st.lists(
    st.builds(Document, ids, ids, ids), min_size=1, max_size=40, unique_by=lambda document: document.id
)


@settings(deadline=None)  # it writes files
@given(documents, st.integers(1, 9))
def test_any_documents_come_back_whatever_the_size_of_a_run(
    tmp_path_factory: pytest.TempPathFactory, given_documents: list[Document], run_rows: int
) -> None:
    built = build_store(given_documents, tmp_path_factory.mktemp("any") / "store", run_rows=run_rows)
    assert list(built) == given_documents
    assert [built.row_of(document.id) for document in given_documents] == list(range(len(given_documents)))


def test_ids_that_share_a_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (corpus_store, store_files):
        monkeypatch.setattr(module, "id_hash", lambda doc_id: bytes([len(doc_id) % 2]) * 8)
    built = build_store(DOCUMENTS, tmp_path / "store", run_rows=7)
    assert [built.row_of(document.id) for document in DOCUMENTS] == list(range(100))
    assert not built.has_id("id999")


def test_a_corpus_of_several_parts_is_the_sequence_that_was_stored(tmp_path: Path) -> None:
    many = [Document(f"id{i}", "", f"{i}") for i in range(2**16 + 3)]  # a part holds 65,536
    repeated = derived("", "again")
    built = build_store([*many[:9], repeated, *many[9:], repeated], tmp_path / "store")
    assert list(built) == [*many[:9], repeated, *many[9:]]
    assert built.row_of(many[-1].id) == len(many)
    assert built.manifest.repeated == 1


def test_the_fingerprint_is_of_ids_titles_texts_and_their_order(tmp_path: Path) -> None:
    a, b = Document("1", "ab", "c"), Document("2", "x", "y")

    def fingerprint(*given_documents: Document) -> str:
        return build_store(given_documents, tmp_path / "store").fingerprint

    prints = [fingerprint(a, b), fingerprint(b, a), fingerprint(Document("1", "a", "bc"), b), fingerprint(a)]
    assert len(set(prints)) == 4
    assert fingerprint(a, Document("2", "x", "y", score=3.0)) == prints[0]


def test_a_store_pickles_as_its_path(store: CorpusStore) -> None:
    payload = pickle.dumps(store)
    assert len(payload) < 1000
    assert pickle.loads(payload)[42] == DOCUMENTS[42]


def test_a_repeated_passage_without_an_id_is_kept_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three = derived("A", "One."), derived("A", "Two."), derived("B", "Three.")
    with caplog.at_level(logging.WARNING):
        built = build_store([one, two, one, one, three], tmp_path / "store", run_rows=2)
    assert list(built) == [one, two, three]
    assert [built.row_of(document.id) for document in (one, two, three)] == [0, 1, 2]
    assert (built.manifest.repeated, built.manifest.skipped) == (2, 0)
    assert "left out 2 passages" in caplog.text
    assert built.fingerprint == build_store([one, two, three], tmp_path / "plain").fingerprint


def test_a_taken_id_is_refused_or_told_and_left_out(tmp_path: Path) -> None:
    first, other, again = Document("x", "A", "One."), Document("y", "B", "Two."), Document("x", "C", "Three.")
    with pytest.raises(RepeatedId, match=r"store, passage 3: id 'x' was already used in passage 1; expected"):
        build_store([first, other, again], tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
    told: list[DataError] = []
    built = build_store([first, other, again], tmp_path / "store", told.append)
    assert list(built) == [first, other]
    assert len(told) == built.manifest.skipped == 1


def test_a_build_that_fails_leaves_the_old_store(tmp_path: Path) -> None:
    build_store(DOCUMENTS[:3], tmp_path / "store")

    def breaks() -> Any:
        yield DOCUMENTS[0]
        raise DataError("c.jsonl, line 2", "x", "y", "z.")

    with pytest.raises(DataError, match="line 2"):
        build_store(breaks(), tmp_path / "store")
    assert list(CorpusStore(tmp_path / "store")) == DOCUMENTS[:3]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert list(build_store(DOCUMENTS[3:5], tmp_path / "store")) == DOCUMENTS[3:5]


def test_what_is_no_store_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="there is something else already"):
        build_store(DOCUMENTS, tmp_path)
    assert (tmp_path / "manifest.json").read_text() == "{}"
    with pytest.raises(DataError, match="there is something else already"):
        build_store(DOCUMENTS, tmp_path / "manifest.json")


def test_nothing_and_half_characters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 documents"):
        build_store([], tmp_path / "store")
    with pytest.raises(DataError, match=r"passage 2, 'b'.*Unicode text"):
        build_store([Document("a", "A", "a"), Document("b", "B", "\ud800")], tmp_path / "store")
    with pytest.raises(ValueError, match="run_rows = 0"):
        build_store(DOCUMENTS, tmp_path / "store", run_rows=0)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no whole corpus store"),
        (lambda folder: (folder / "rows.i64").unlink(), "no whole corpus store"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "no whole corpus store"),
        (lambda folder: (folder / "texts.bin").write_bytes(b"x"), "texts.bin: it has 1 bytes; expected"),
        (
            lambda folder: (folder / "manifest.json").write_text(json.dumps({"format": 99})),
            "a corpus store of format 99; expected format 1",
        ),
    ],
)
def test_a_store_that_is_not_whole_is_refused(store: CorpusStore, tmp_path: Path, spoil: Any, said: str) -> None:
    folder = Path(shutil.copytree(store.folder, tmp_path / "copy"))
    spoil(folder)
    with pytest.raises(DataError, match="Build it again") as caught:
        CorpusStore(folder)
    assert said in str(caught.value)


def test_a_store_takes_the_place_of_a_corpus_file(store: CorpusStore) -> None:
    corpus = load_corpus(store.folder)
    assert isinstance(corpus, CorpusStore)
    question = Question("q/1", "who?", ("A",), sub_queries=("s",), gold_doc_ids=("id4", "id2"))
    found = gold_in_corpus([question], corpus, GoldNeed("texts", 1.0))
    assert found.questions[0].gold_passages == tuple(DOCUMENTS[i].text for i in (4, 2))
    unknown = Question("q/1", "who?", ("A",), sub_queries=("s",), gold_doc_ids=("none",))
    assert gold_in_corpus([unknown], corpus, GoldNeed("texts", 1.0)).share == 0
    plain = training_questions([replace(question, gold_doc_ids=("none", "id2"))], corpus, None, file=store.folder)
    assert plain[0].gold_doc_ids == ("id2",)
