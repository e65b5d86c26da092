"""Loads a corpus: title/text lists, HotpotQA's title -> sentences, jsonl with `text` or wiki-18's `contents`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from calibadv.data.errors import DataError, shown
from calibadv.data.records import Record, read_records
from calibadv.types import Document

log = logging.getLogger(__name__)


def passage_id(title: str, text: str) -> str:
    """The id of a passage that has none of its own: 16 hex digits of its title and text, white space squeezed.

    The question loader gives gold passages the same ids.
    """
    squeezed = "\n".join(" ".join(part.split()) for part in (title, text))
    return hashlib.blake2b(squeezed.encode(), digest_size=8).hexdigest()


def join_sentences(sentences: Sequence[str]) -> str:
    """One passage from its sentences: HotpotQA's begin with a blank, 2WikiMultiHopQA's do not."""
    return " ".join(sentence.strip() for sentence in sentences if sentence.strip())


def load_corpus(path: Path) -> list[Document]:
    """The documents of a corpus in file order.

    A passage without an id gets `passage_id`; of equal ones only the first is kept. Two documents with one given id are
    an error.
    """
    documents: dict[str, Document] = {}
    places: dict[str, str] = {}
    repeated = 0
    for record in read_records(path):
        document, own_id = _document(record)
        if document.id in documents:
            if own_id:
                raise DataError(
                    record.place,
                    f"id {document.id!r} was already used in {places[document.id]}",
                    "every document to have an id of its own",
                    "Number the documents anew.",
                )
            repeated += 1
            continue
        documents[document.id], places[document.id] = document, record.place
    if repeated:
        log.warning("%s: left out %d passages that repeat an earlier one", path, repeated)
    return list(documents.values())


def _document(record: Record) -> tuple[Document, bool]:
    title, text = _title_and_text(record)
    own_id = record.get("id", "_id")
    if own_id is None:
        return Document(passage_id(title, text), title, text), False
    if not isinstance(own_id, (str, int)) or not str(own_id).strip():
        raise DataError(record.place, f"id is {shown(own_id)}", "a string or a number", "Mend or drop the id.")
    return Document(str(own_id), title, text), True


def _title_and_text(record: Record) -> tuple[str, str]:
    if "contents" in record.fields and "text" not in record.fields:
        head, newline, body = record.text("contents").partition("\n")
        if not newline or not body.strip():
            raise DataError(
                record.place, f"'contents' is {shown(head)}", "'\"Title\"\\ntext'", "Give the title its own line."
            )
        return head.strip().removeprefix('"').removesuffix('"'), body.strip()
    if "sentences" in record.fields:
        body = record.need("sentences", (list, str), "a list of sentences")
        sentences = [body] if isinstance(body, str) else body
        if not all(isinstance(sentence, str) for sentence in sentences) or not join_sentences(sentences):
            raise DataError(
                record.place,
                f"the sentences of {shown(record.get('title'))} are {shown(body)}",
                "a list of strings, not all blank",
                "Fill it or drop the entry.",
            )
        return record.text("title"), join_sentences(sentences)
    return record.text("title"), record.text("text")
