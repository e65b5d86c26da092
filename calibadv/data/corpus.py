"""Reads corpora: title/text, HotpotQA's title -> sentences, HippoRAG's lists, wiki-18's `contents`, prepared stores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibadv.data.corpus_store import CorpusStore
from calibadv.data.errors import DataError, OnBad, RepeatedId, refuse
from calibadv.data.passages import join_sentences, passage_id
from calibadv.data.records import Record, counted_records
from calibadv.data.tally import REPEATED, Tally
from calibadv.refusals import short_repr
from calibadv.types import Document

__all__ = ["join_sentences", "load_corpus", "passage_id", "read_documents"]

log = logging.getLogger(__name__)


def load_corpus(path: Path, on_bad: OnBad = refuse, tally: Tally | None = None) -> Sequence[Document]:
    """The documents of a corpus in file order: a list, or the `CorpusStore` in the folder `path`, which stays on disk.

    A passage without an id gets `passage_id`; of equal ones only the first is kept. Two documents with one given id are
    an error. `tally` counts what became of every row; those of a store were counted when it was made.
    """
    tally = Tally() if tally is None else tally
    if path.is_dir():
        store = CorpusStore(path)
        tally.rows = tally.read = len(store)
        return store
    documents: dict[str, Document] = {}
    places: dict[str, str] = {}
    for document, record in _documents(path, on_bad, tally):
        if document.id not in documents:
            documents[document.id], places[document.id] = document, record.place
        elif record.own_id() is None:
            tally.leave_out(REPEATED)
        else:
            on_bad(RepeatedId(record.place, document.id, places[document.id]))
            tally.refuse()
    if repeated := tally.left_out[REPEATED]:
        log.warning("%s: left out %d passages that repeat an earlier one", path, repeated)
    return list(documents.values())


def read_documents(path: Path, on_bad: OnBad = refuse, tally: Tally | None = None) -> Iterator[Document]:
    """The documents of a corpus file in its order, at least one, only the one at hand in memory.

    Rows that are wrong go to `on_bad`. Ids are not compared: `build_store` does that. `tally` counts the rows.
    """
    return (document for document, _ in _documents(path, on_bad, Tally() if tally is None else tally))


def places_of_id(path: Path, doc_id: str) -> Iterator[str]:
    """Where in a corpus file the documents of an id stand; reads the file again."""
    return (record.place for document, record in _documents(path, lambda _: None, Tally()) if document.id == doc_id)


def _documents(path: Path, on_bad: OnBad, tally: Tally) -> Iterator[tuple[Document, Record]]:
    found, first_wrong = False, None
    for record in counted_records(path, on_bad, tally):
        try:
            document = _document(record)
        except DataError as error:
            on_bad(error)
            tally.refused += 1
            first_wrong = first_wrong or error
            continue
        found = True
        tally.read += 1
        yield document, record
    if not found:
        assert first_wrong is not None
        raise first_wrong


def _document(record: Record) -> Document:
    title, text = _title_and_text(record)
    own_id = record.own_id()
    return Document(passage_id(title, text) if own_id is None else own_id, title, text)


def _title_and_text(record: Record) -> tuple[str, str]:
    if "contents" in record.fields and "text" not in record.fields:
        head, newline, body = record.text("contents").partition("\n")
        if not newline or not body.strip():
            raise DataError(
                record.place, f"'contents' is {short_repr(head)}", "'\"Title\"\\ntext'", "Give the title its own line."
            )
        return head.strip().removeprefix('"').removesuffix('"'), body.strip()
    if "sentences" in record.fields:
        body = record.read("sentences", record.need("sentences", (list, str), "a list of sentences"))
        sentences = [body] if isinstance(body, str) else body
        if not all(isinstance(sentence, str) for sentence in sentences) or not join_sentences(sentences):
            raise DataError(
                record.place,
                f"the sentences of {short_repr(record.get('title'))} are {short_repr(body)}",
                "a list of strings, not all blank",
                "Fill it or drop the entry.",
            )
        return record.text("title"), record.unicode("sentences", join_sentences(sentences))
    return record.text("title"), record.text("text")
