"""What a multi-hop data set says of the way to the answer: its supporting passages and sub-questions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibadv.data.errors import DataError
from calibadv.data.nested import objects_of, parsed, rows_of
from calibadv.data.passages import join_sentences, passage_id
from calibadv.data.record import Record
from calibadv.refusals import short_repr

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


_FACT = (("title",), ("sent_id",))
# FlashRAG calls the sentences of HotpotQA "sentences", those of 2Wiki "content".
_PASSAGE = (("title",), ("sentences", "content", "text", "paragraph_text"))
_EVIDENCE = (("fact", "subject", "head"), ("relation", "predicate"), ("entity", "object", "tail"))


def _hotpot(record: Record) -> Gold:
    try:
        facts = rows_of(record.get("supporting_facts"), _FACT, needed=1)
        titles = tuple(dict.fromkeys(_text(title) for (title,) in facts))
    except ValueError as error:
        raise _unreadable(record, "supporting_facts", "[[title, sentence number], ...]", error) from error
    try:
        texts = {_text(title): _passage(body) for title, body in rows_of(record.get("context"), _PASSAGE)}
        passages = tuple((title, texts[title]) for title in titles if texts.get(title))
    except ValueError as error:
        raise _unreadable(record, "context", "[[title, [sentence, ...]], ...]", error) from error
    try:
        # Neither data set has sub-questions; these are what a search of each hop names (our decision).
        triples = [tuple(map(_text, row)) for row in rows_of(record.get("evidences"), _EVIDENCE)]
        sub_queries = tuple(f"{subject} {relation}" for subject, relation, _ in triples) or titles
        hop_answers = tuple(entity for _, _, entity in triples)
    except ValueError as error:
        raise _unreadable(record, "evidences", "[[subject, relation, object], ...]", error) from error
    return Gold(tuple(passage_id(*passage) for passage in passages), titles, sub_queries, hop_answers, passages)


def _text(value: Any) -> str:
    """A title or a name, which some files give as a number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{short_repr(value)} is no text")
    return str(value)


def _passage(body: Any) -> str:
    body = parsed(body)
    if isinstance(body, str):
        return body.strip()
    if not isinstance(body, (list, tuple)) or not all(isinstance(sentence, str) for sentence in body):
        raise ValueError(f"the sentences {short_repr(body)} are no texts")
    return join_sentences(body)


def _musique(record: Record) -> Gold:
    hops, paragraphs = _objects(record, "question_decomposition"), _objects(record, "paragraphs")
    try:
        hop_answers = tuple(str(hop.get("answer") or "").strip() for hop in hops)
        sub_queries = resolve_hops([_text(hop["question"]) for hop in hops], hop_answers)
        if record.get("paragraphs") is None:  # FlashRAG's: each hop holds its passage
            passages = [parsed(hop["support_paragraph"]) for hop in hops if hop.get("support_paragraph")]
        else:
            hop_of = {hop.get("paragraph_support_idx"): number for number, hop in enumerate(hops)}
            supporting = [passage for passage in paragraphs if truth(passage.get("is_supporting"))]
            passages = sorted(supporting, key=lambda passage: hop_of.get(passage.get("idx"), len(hops)))
        titles = tuple(dict.fromkeys(_text(passage["title"]) for passage in passages))
        named = [(_text(passage["title"]), _text(passage["paragraph_text"])) for passage in passages]
        texts = {passage_id(title, text): (title, text) for title, text in named}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(
            record.place,
            f"'paragraphs' or 'question_decomposition' cannot be read ({error!r})",
            "paragraphs of title, paragraph_text and is_supporting; hops with a question",
            "Use MuSiQue's original file, or FlashRAG's jsonl.",
        ) from error
    return Gold(tuple(texts), titles, sub_queries, hop_answers, tuple(texts.values()))


def lacks_a_passage(record: Record) -> bool:
    """Whether a hop of a MuSiQue record says of its passage that it is none of those given."""
    hops = _objects(record, "question_decomposition")
    return any(hop.get("paragraph_support_idx", 0) is None for hop in hops)


def _objects(record: Record, key: str) -> list[Mapping[str, Any]]:
    try:
        return objects_of(record.get(key))
    except ValueError as error:
        raise DataError(
            record.place,
            f"{key!r} is {short_repr(record.get(key))} ({error})",
            f"{key!r} as a list of objects",
            "Use MuSiQue's original file, or FlashRAG's jsonl.",
        ) from error


def truth(value: Any) -> bool:
    """A truth value, also as a number or as a word; None is False. ValueError for anything else."""
    found = _TRUTH.get(str(value).strip().lower())
    if found is None:
        raise ValueError(f"{short_repr(value)} is neither true nor false")
    return found


_TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "none": False, "": False}


def _unreadable(record: Record, key: str, expected: str, error: Exception) -> DataError:
    return DataError(
        record.place,
        f"{key!r} cannot be read ({error})",
        f"{key} {expected}",
        "Use the data set's original JSON, or FlashRAG's jsonl.",
    )
