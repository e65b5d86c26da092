"""What a multi-hop data set says of the way to the answer: its supporting passages and sub-questions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from calibadv.data.errors import DataError
from calibadv.data.passages import join_sentences, passage_id
from calibadv.data.record import Record

_EARLIER_HOP = re.compile(r"#(\d+)")


@dataclass(frozen=True, slots=True)
class Gold:
    """The supporting passages, by the ids that `load_corpus` gives them and by title, and the sub-queries, in order."""

    doc_ids: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    sub_queries: tuple[str, ...] = ()  # each can be searched by itself: answers stand in place of MuSiQue's "#1"
    hop_answers: tuple[str, ...] = ()  # one a sub-query, "" where unknown; () where the data set has none
    passages: tuple[
        tuple[str, str], ...
    ] = ()  # title and text of each of `doc_ids`; () where the data set has no texts


def gold_of(record: Record) -> Gold:
    """The gold of a record of MuSiQue, HotpotQA or 2WikiMultiHopQA, as published or with FlashRAG's columns.

    Of any other record what its lists `gold_doc_ids`, `gold_titles` and `sub_queries` say; empty where it has none.
    MuSiQue's sub-queries name earlier hops as "#1", "#2": see `resolve_hops`. Its " >> " between an entity and a
    relation stays, so that they are the data set's own words.
    """
    if record.get("paragraphs", "question_decomposition") is not None:
        return _musique(record)
    if record.get("supporting_facts", "evidences") is not None:
        return _hotpot(record)
    return Gold(record.strings("gold_doc_ids"), record.strings("gold_titles"), record.strings("sub_queries"))


def resolve_hops(sub_queries: Sequence[str], hop_answers: Sequence[str]) -> tuple[str, ...]:
    """The sub-queries with "#k" replaced by the answer of hop k, counted from 1.

    "#k" stays where hop k is none of the earlier ones or its answer is not known ("#9 Dream" is a song).
    """

    def resolved(number: int, query: str) -> str:
        def answer(found: re.Match[str]) -> str:
            hop = int(found.group(1))
            return (hop_answers[hop - 1] if 1 <= hop <= number else "") or found.group()

        return _EARLIER_HOP.sub(answer, query)

    assert len(sub_queries) == len(hop_answers)
    return tuple(resolved(number, query) for number, query in enumerate(sub_queries))


def _hotpot(record: Record) -> Gold:
    try:
        facts = _rows(record.get("supporting_facts"), "title", "sent_id")
        titles = tuple(dict.fromkeys(str(title) for title, _ in facts))
    except (TypeError, ValueError) as error:
        raise _unreadable(record, "supporting_facts", "[[title, sentence number], ...]", error) from error
    try:
        texts = {title: _passage(sentences) for title, sentences in _context(record.get("context"))}
        passages = tuple((title, texts[title]) for title in titles if texts.get(title))
    except (TypeError, ValueError, AttributeError) as error:
        raise _unreadable(record, "context", "[[title, [sentence, ...]], ...]", error) from error
    try:
        # Neither data set has sub-questions; these are what a search of each hop names (our decision).
        triples = [(s, r, o) for s, r, o in _rows(record.get("evidences"), "fact", "relation", "entity")]
        sub_queries = tuple(f"{subject} {relation}" for subject, relation, _ in triples) or titles
        hop_answers = tuple(str(entity) for _, _, entity in triples)
    except (TypeError, ValueError) as error:
        raise _unreadable(record, "evidences", "[[subject, relation, object], ...]", error) from error
    return Gold(tuple(passage_id(*passage) for passage in passages), titles, sub_queries, hop_answers, passages)


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
        hop_answers = tuple(str(hop.get("answer") or "").strip() for hop in hops)
        sub_queries = resolve_hops([str(hop["question"]) for hop in hops], hop_answers)
        if paragraphs is None:  # FlashRAG's: each hop holds its passage
            passages = [hop["support_paragraph"] for hop in hops if hop.get("support_paragraph")]
        else:
            hop_of = {hop.get("paragraph_support_idx"): number for number, hop in enumerate(hops)}
            supporting = [passage for passage in paragraphs if passage.get("is_supporting")]
            passages = sorted(supporting, key=lambda passage: hop_of.get(passage.get("idx"), len(hops)))
        titles = tuple(dict.fromkeys(str(passage["title"]) for passage in passages))
        texts = {passage_id(p["title"], p["paragraph_text"]): (p["title"], p["paragraph_text"]) for p in passages}
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            record.place,
            f"'paragraphs' or 'question_decomposition' cannot be read ({error!r})",
            "paragraphs of title, paragraph_text and is_supporting; hops with a question",
            "Use MuSiQue's original file, or FlashRAG's jsonl.",
        ) from error
    return Gold(tuple(texts), titles, sub_queries, hop_answers, tuple(texts.values()))


def _unreadable(record: Record, key: str, expected: str, error: Exception) -> DataError:
    return DataError(
        record.place,
        f"{key!r} cannot be read ({error})",
        f"{key} {expected}",
        "Use the data set's original JSON, or FlashRAG's jsonl.",
    )
