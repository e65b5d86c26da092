"""What a multi-hop data set says of the way to the answer: its supporting passages and sub-questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from calibadv.data.errors import DataError
from calibadv.data.passages import join_sentences, passage_id
from calibadv.data.record import Record


@dataclass(frozen=True, slots=True)
class Gold:
    """The supporting passages, by the ids that `load_corpus` gives them and by title, and the sub-queries, in order."""

    doc_ids: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    sub_queries: tuple[str, ...] = ()


def gold_of(record: Record) -> Gold:
    """The gold of a record of MuSiQue, HotpotQA or 2WikiMultiHopQA, as published or with FlashRAG's columns.

    Of any other record what its lists `gold_doc_ids`, `gold_titles` and `sub_queries` say; empty where it has none.
    """
    if record.get("paragraphs", "question_decomposition") is not None:
        return _musique(record)
    if record.get("supporting_facts", "evidences") is not None:
        return _hotpot(record)
    return Gold(record.strings("gold_doc_ids"), record.strings("gold_titles"), record.strings("sub_queries"))


def _hotpot(record: Record) -> Gold:
    try:
        facts = _rows(record.get("supporting_facts"), "title", "sent_id")
        titles = tuple(dict.fromkeys(str(title) for title, _ in facts))
    except (TypeError, ValueError) as error:
        raise _unreadable(record, "supporting_facts", "[[title, sentence number], ...]", error) from error
    try:
        texts = {title: _passage(sentences) for title, sentences in _context(record.get("context"))}
        doc_ids = tuple(passage_id(title, texts[title]) for title in titles if texts.get(title))
    except (TypeError, ValueError, AttributeError) as error:
        raise _unreadable(record, "context", "[[title, [sentence, ...]], ...]", error) from error
    try:
        # Neither data set has sub-questions; these are what a search of each hop names (our decision).
        triples = _rows(record.get("evidences"), "fact", "relation", "entity")
        sub_queries = tuple(f"{subject} {relation}" for subject, relation, _ in triples) or titles
    except (TypeError, ValueError) as error:
        raise _unreadable(record, "evidences", "[[subject, relation, object], ...]", error) from error
    return Gold(doc_ids, titles, sub_queries)


def _rows(value: Any, *keys: str) -> Iterable[Sequence[Any]]:
    """The rows of a list of rows, or of FlashRAG's columns {key: list}. Nothing for None, also in place of a column."""
    if isinstance(value, dict):
        columns = [value[key] for key in keys if value.get(key) is not None]
        return zip(*columns, strict=True) if len(columns) == len(keys) else ()
    return value or ()


def _context(value: Any) -> Iterable[Sequence[Any]]:
    # FlashRAG calls the sentences of HotpotQA "sentences", those of 2Wiki "content".
    return _rows(
        value, "title", "content" if isinstance(value, dict) and value.get("content") is not None else "sentences"
    )


def _passage(sentences: str | Sequence[str]) -> str:
    return sentences.strip() if isinstance(sentences, str) else join_sentences(sentences)


def _musique(record: Record) -> Gold:
    hops, paragraphs = record.get("question_decomposition") or (), record.get("paragraphs")
    if paragraphs is not None:
        record.need("paragraphs", list, "'paragraphs' as a list")
    try:
        sub_queries = tuple(str(hop["question"]) for hop in hops)
        if paragraphs is None:  # FlashRAG's: each hop holds its passage
            passages = [hop["support_paragraph"] for hop in hops if hop.get("support_paragraph")]
        else:
            hop_of = {hop.get("paragraph_support_idx"): number for number, hop in enumerate(hops)}
            supporting = [passage for passage in paragraphs if passage.get("is_supporting")]
            passages = sorted(supporting, key=lambda passage: hop_of.get(passage.get("idx"), len(hops)))
        titles = tuple(dict.fromkeys(str(passage["title"]) for passage in passages))
        doc_ids = tuple(dict.fromkeys(passage_id(p["title"], p["paragraph_text"]) for p in passages))
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            record.place,
            f"'paragraphs' or 'question_decomposition' cannot be read ({error!r})",
            "paragraphs of title, paragraph_text and is_supporting; hops with a question",
            "Use MuSiQue's original file, or FlashRAG's jsonl.",
        ) from error
    return Gold(doc_ids, titles, sub_queries)


def _unreadable(record: Record, key: str, expected: str, error: Exception) -> DataError:
    return DataError(
        record.place,
        f"{key!r} cannot be read ({error})",
        f"{key} {expected}",
        "Use the data set's original JSON, or FlashRAG's jsonl.",
    )
