"""Loads question sets: FlashRAG / Search-R1, HotpotQA, 2WikiMultiHopQA and MuSiQue, told apart by their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from calibadv.data.corpus import join_sentences, passage_id
from calibadv.data.errors import DataError, shown
from calibadv.data.records import Record, read_records
from calibadv.types import Document, Question


def load_questions(path: Path, *, name: str | None = None) -> list[Question]:
    """The questions of a file in its order, ids `name/source-id`; `name` is the file's stem unless given.

    `gold_doc_ids` are the ids that `load_corpus` gives the same passages.
    """
    dataset = path.stem if name is None else name
    questions: dict[str, Question] = {}
    places: dict[str, str] = {}
    for record in read_records(path):
        question = _question(record, dataset)
        if question.id in questions:
            raise DataError(
                record.place,
                f"id {question.id!r} was already used in {places[question.id]}",
                "every question to have an id of its own",
                "Drop or rename one of the two.",
            )
        questions[question.id], places[question.id] = question, record.place
    return list(questions.values())


def with_gold_passages(questions: Sequence[Question], corpus: Iterable[Document]) -> list[Question]:
    """The questions with `gold_passages` filled in from the corpus, for methods whose rewards read them.

    ValueError for a question without gold sub-queries or passages, or with one that the corpus does not hold.
    """
    texts = {document.id: f"{document.title}\n{document.text}" for document in corpus}
    filled = []
    for question in questions:
        if not question.sub_queries or not question.gold_doc_ids:
            raise ValueError(
                f"question {question.id!r} has no gold sub-queries or no gold passages, which this method's rewards "
                "need: use a data set that has them (MuSiQue, HotpotQA, 2Wiki, the pocket world) or another method"
            )
        missing = [doc_id for doc_id in question.gold_doc_ids if doc_id not in texts]
        if missing:
            raise ValueError(
                f"gold passage {missing[0]!r} of question {question.id!r} is not in the corpus: use the corpus that "
                "belongs to the questions"
            )
        filled.append(replace(question, gold_passages=tuple(texts[doc_id] for doc_id in question.gold_doc_ids)))
    return filled


def _question(record: Record, dataset: str) -> Question:
    if "golden_answers" in record.fields:
        return _flashrag(record, dataset)
    if "paragraphs" in record.fields or "question_decomposition" in record.fields:
        return _musique(record, dataset)
    if "answer" in record.fields:
        return _hotpot(record, dataset)
    if "reward_model" in record.fields:
        return _flashrag(record, dataset)
    raise DataError(
        record.place,
        f"no answers among the keys {shown(sorted(record.fields))}",
        "'golden_answers' (FlashRAG), 'answer' with 'context' (HotpotQA, 2Wiki) or with 'paragraphs' (MuSiQue)",
        "Convert the file to one of these formats.",
    )


def _source_id(record: Record) -> str:
    value = record.get("id", "_id")
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise DataError(record.place, f"the id is {shown(value)}", "a key 'id' or '_id'", "Give the question an id.")
    return str(value)


def _answers(record: Record, values: object) -> tuple[str, ...]:
    """The answers that are not blank, each once, in their order; at least one."""
    listed = [values] if isinstance(values, str) else values
    if not isinstance(listed, list) or not all(isinstance(value, str) for value in listed):
        raise DataError(record.place, f"the answers are {shown(values)}", "a list of strings", "Mend the record.")
    answers = tuple(dict.fromkeys(value.strip() for value in listed if value.strip()))
    if not answers:
        raise DataError(
            record.place, f"question {_source_id(record)!r} has no golden answer", "at least one", "Drop the question."
        )
    return answers


def _strings(values: object) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, list) else ()


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if isinstance(value, (str, int, float))}


def _flashrag(record: Record, dataset: str) -> Question:
    golden = record.get("golden_answers")
    if golden is None:  # Search-R1's parquet keeps them in the reward's ground truth only
        golden = ((record.get("reward_model") or {}).get("ground_truth") or {}).get("target")
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise DataError(record.place, f"'metadata' is {shown(metadata)}", "a JSON object", "Mend or drop it.")
    return Question(
        id=f"{dataset}/{_source_id(record)}",
        text=record.text("question"),
        golden_answers=_answers(record, golden),
        sub_queries=_strings(metadata.get("sub_queries")),
        gold_doc_ids=_strings(metadata.get("gold_doc_ids")),
        metadata=_plain(metadata),
    )


def _hotpot(record: Record, dataset: str) -> Question:
    return Question(
        id=f"{dataset}/{_source_id(record)}",
        text=record.text("question"),
        golden_answers=_answers(record, record.get("answer")),
        sub_queries=_sub_queries(record),
        gold_doc_ids=_supporting_passages(record),
        metadata=_plain({key: record.get(key) for key in ("type", "level")}),
    )


def _sub_queries(record: Record) -> tuple[str, ...]:
    """2Wiki's evidence triples as "subject relation", else the titles of HotpotQA's supporting facts: neither data set
    has sub-questions, and these are what a search of each hop names (our decision)."""
    evidences, facts = record.get("evidences"), record.get("supporting_facts")
    try:
        if evidences:
            return tuple(f"{subject} {relation}" for subject, relation, _ in evidences)
        return tuple(dict.fromkeys(str(title) for title, _ in facts or ()))
    except (TypeError, ValueError) as error:
        raise DataError(
            record.place,
            f"'evidences' or 'supporting_facts' cannot be read ({error})",
            "evidences [[subject, relation, object], ...] and supporting_facts [[title, sentence number], ...]",
            "Use the data set's original JSON, or FlashRAG's jsonl.",
        ) from error


def _supporting_passages(record: Record) -> tuple[str, ...]:
    """Ids of the passages of the context that hold a supporting fact, in the order of the facts."""
    try:
        texts = {title: join_sentences(sentences) for title, sentences in record.get("context") or ()}
        titles = dict.fromkeys(title for title, _ in record.get("supporting_facts") or ())
        return tuple(passage_id(title, texts[title]) for title in titles if title in texts)
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(
            record.place,
            f"'context' or 'supporting_facts' cannot be read ({error})",
            "context [[title, [sentence, ...]], ...] and supporting_facts [[title, sentence number], ...]",
            "Use HotpotQA's original JSON, or FlashRAG's jsonl.",
        ) from error


def _musique(record: Record, dataset: str) -> Question:
    paragraphs = record.need("paragraphs", list, "'paragraphs' as a list")
    hops = record.get("question_decomposition") or []
    try:
        gold = tuple(passage_id(p["title"], p["paragraph_text"]) for p in paragraphs if p.get("is_supporting"))
        sub_queries = tuple(hop["question"] for hop in hops)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            record.place,
            f"'paragraphs' or 'question_decomposition' cannot be read ({error!r})",
            "paragraphs of title, paragraph_text and is_supporting; hops with a question",
            "Use MuSiQue's original file.",
        ) from error
    answers = [record.text("answer"), *(record.get("answer_aliases") or [])]
    return Question(
        id=f"{dataset}/{_source_id(record)}",
        text=record.text("question"),
        golden_answers=_answers(record, answers),
        sub_queries=sub_queries,
        gold_doc_ids=tuple(dict.fromkeys(gold)),
        metadata=_plain({"hops": len(hops), "answerable": str(record.get("answerable"))}) if hops else {},
    )
