"""A folder of documents as a corpus: ids that say where, titles, and a reason for every file that is left out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from calibadv.data.corpus import load_corpus
from calibadv.data.documents.blocks import Why
from calibadv.data.documents.splitting import Window
from calibadv.data.errors import DataError
from calibadv.data.preparation.documents import prepare_documents
from calibadv.json_lines import read_json_lines
from tests.data.documents.files import docx, pdf, xlsx


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "hr/handbook.md": b"# Handbook\nHello.\n## Leave\nThirty days.\n",
        "hr/two_tops.html": b"<h1>A</h1><p>Of a.</p><h1>B</h1><p>Of b.</p>",
        "notes.txt": b"word " * 15,
        "price list.xlsx": xlsx(North=[["Town", "Days"], ["Oslo", 30]]),
        "copy/handbook.md": b"# Handbook\nHello.\n",
        "b.pdf": pdf("Ask Ada."),
        "secret.pdf": pdf("Ask nobody.", encrypted=True),
        "empty.docx": docx("", ""),
        "blank.md": b"\n",
        "logo.png": b"\x89PNG",
        ".git/config.txt": b"hidden",
    }
    for name, content in files.items():
        path = tmp_path / "documents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "documents"


def test_a_folder_becomes_a_corpus_whose_ids_say_where(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus.jsonl"
    found = prepare_documents(folder, out, Window(words=10, overlap=0))
    documents = {document.id: (document.title, document.text) for document in load_corpus(out)}
    assert documents == {
        "b.pdf#page=1": ("b", "Ask Ada."),
        "copy/handbook.md#line=2": ("Handbook", "Hello."),
        "hr/handbook.md#line=4": ("Handbook > Leave", "Thirty days."),
        "hr/two_tops.html#line=1": ("two tops > A", "Of a."),
        "hr/two_tops.html#line=1&part=2": ("two tops > B", "Of b."),
        "notes.txt#line=1": ("notes", "word " * 9 + "word"),
        "notes.txt#line=1&part=2": ("notes", "word " * 4 + "word"),
        "price list.xlsx#sheet=North&row=2": ("North", "Town: Oslo; Days: 30"),
    }
    assert (found.files, found.read, found.passages, found.repeated) == (10, 6, 8, 1)
    assert found.files == found.read + found.left_out.total()
    row = next(row for row in read_json_lines(out) if row["id"] == "hr/handbook.md#line=4")
    assert (row["source"], row["place"]) == ("hr/handbook.md", "line=4")


def test_what_is_left_out_is_said_in_a_line_a_reason(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        prepare_documents(folder, tmp_path / "corpus.jsonl")
    listing = tmp_path / "corpus.jsonl.skipped.txt"
    assert [record.message for record in caplog.records] == [
        "left out: 1 of a kind that is not read: logo.png",
        "left out: 2 without text: blank.md, empty.docx",
        "left out: 1 encrypted: secret.pdf",
        f"all 4 files that were left out are listed in {listing}",
    ]
    assert [line.split(": ")[0] for line in listing.read_text().splitlines()] == [
        *("blank.md", "empty.docx", "logo.png", "secret.pdf")
    ]
    for name in ("blank.md", "empty.docx", "logo.png", "secret.pdf"):
        (folder / name).unlink()
    prepare_documents(folder, tmp_path / "corpus.jsonl")
    assert not listing.exists()  # an old list would speak of an old folder


def test_links_out_of_the_folder_are_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.txt").write_text("Not of this folder.")
    before = prepare_documents(folder, tmp_path / "before.jsonl")
    for name, target in (
        ("a.txt", tmp_path / "elsewhere" / "secret.txt"),
        ("team", tmp_path / "elsewhere"),
        ("same", folder / "hr"),  # a folder inside is read where it lies
        ("copy/notes.txt", folder / "notes.txt"),
        ("loop", folder / "loop"),
    ):
        (folder / name).symlink_to(target)
    found = prepare_documents(folder, tmp_path / "corpus.jsonl")
    assert found.left_out - before.left_out == {Why.OUTSIDE: 2}
    assert (found.files, found.read, found.passages) == (before.files + 3, before.read + 1, before.passages)
    assert not any("Not of this folder" in document.text for document in load_corpus(tmp_path / "corpus.jsonl"))


def test_a_folder_without_a_passage_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"of 1 files none gives a passage \(1 of a kind that is not read\); .*\.docx"):
        prepare_documents(tmp_path / "documents", tmp_path / "corpus.jsonl")
    with pytest.raises(DataError, match=r"cannot be written to a folder; expected a name that ends in \.jsonl"):
        prepare_documents(tmp_path / "documents", tmp_path / "corpus")
    assert [path.name for path in tmp_path.iterdir()] == ["documents"]
