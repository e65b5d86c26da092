"""One record of any question format -> one `QuestionRow`; the formats are told apart by their keys.

FlashRAG keeps what is special to a data set in `metadata`; it is read as if it stood in the record itself, so that a
data set is read one way, FlashRAG's or as published.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from calibadv.data.errors import DataError
from calibadv.data.gold import gold_of, lacks_a_passage, truth
from calibadv.data.gold_dialogues import HOP_ANSWERS
from calibadv.data.record import Record
from calibadv.data.schema import QuestionRow, is_prepared, prepared_metadata, prepared_row
from calibadv.refusals import short_repr

_ANSWER_KEYS = ("golden_answers", "answers", "answer")
_READ = {"id", "_id", "question", "type", "hops", "data_source", "ability", "split", "prompt", *_ANSWER_KEYS}
"""Scalars that have a place of their own in a row, or say nothing of the question."""

_VERL_PREFIX = "searchR1_"  # of verl's data sources; its score function is chosen by it


def question_row(record: Record, dataset: str | None, fallback: str) -> QuestionRow:
    """The row of a record; `DataError` with its place if it has no question or no answer.

    Its data set is `dataset`, else the record's `data_source`, else `fallback`; without an id it gets `content_key`. A
    prepared record keeps the id that it has.
    """
    if is_prepared(record):
        return prepared_row(record)
    record = _with_metadata(record)
    text, answers = _question(record), _answers(record)
    aliases = tuple(a for a in record.strings("aliases") + record.strings("answer_aliases") if a not in answers)
    hops = record.whole_number("hops")
    gold, own_id = gold_of(record), record.own_id()
    source_id = content_key(text, answers) if own_id is None else own_id.strip()
    return QuestionRow(
        id=f"{dataset or _data_source(record) or fallback}/{source_id}",
        question=text,
        golden_answers=answers,
        aliases=tuple(dict.fromkeys(aliases)),
        hops=(len(gold.sub_queries) or None) if hops is None else hops,  # a hop for each gold sub-query
        type=_type(record),
        gold_doc_ids=gold.doc_ids,
        gold_titles=gold.titles,
        gold_passages=tuple(record.unicode("the gold passages", _passage(*passage)) for passage in gold.passages),
        sub_queries=gold.sub_queries,
        metadata={
            key: record.unicode(key, str(value))
            for key, value in record.fields.items()
            if key and key not in _READ and isinstance(value, (str, int, float))
        }
        | ({HOP_ANSWERS: json.dumps(gold.hop_answers)} if any(gold.hop_answers) else {}),  # some may be unknown
    )


def _passage(title: str, text: str) -> str:
    """Title and text in one, the title on the first line."""
    return f"{' '.join(title.split())}\n{text}"


def is_unanswerable(record: Record) -> bool:
    """Whether the passages of a record lack the answer: MuSiQue's `answerable`, or SQuAD's `is_impossible`, say so.

    Such a question stands beside its answerable twin, often under the same id. A prepared record says it too, and where
    nothing does, a hop of MuSiQue's whose passage is named as none of those that are given.
    """
    said = prepared_metadata(record) if is_prepared(record) else _with_metadata(record).fields
    for key, bad in (("answerable", False), ("is_impossible", True)):
        try:
            if said.get(key) is not None and truth(said[key]) is bad:
                return True
        except ValueError as error:
            raise DataError(record.place, f"{key!r}: {error}", "true or false", f"Mend or drop {key!r}.") from error
    return said.get("answerable") is None and said.get("paragraphs") is not None and lacks_a_passage(record)


def has_own_id(record: Record) -> bool:
    """Whether the id of the record's row is its own and not made of its content."""
    return is_prepared(record) or record.get("id", "_id") is not None


def content_key(text: str, answers: tuple[str, ...]) -> str:
    """16 hex digits of the question and its answers, white space squeezed: the same wherever in the file they stand."""
    squeezed = "\n".join(" ".join(part.split()) for part in (text, *answers))
    return hashlib.blake2b(squeezed.encode(), digest_size=8).hexdigest()


def _with_metadata(record: Record) -> Record:
    metadata = record.value("metadata")
    if metadata is None:
        return record
    if not isinstance(metadata, dict):
        raise DataError(record.place, f"'metadata' is {short_repr(metadata)}", "a JSON object", "Mend or drop it.")
    said = {key: value for key, value in record.fields.items() if value is not None or key not in metadata}
    return Record(record.place, {**metadata, **said})


def _data_source(record: Record) -> str | None:
    source = record.get("data_source")
    return source.strip().removeprefix(_VERL_PREFIX) if isinstance(source, str) else None


def _question(record: Record) -> str:
    if "question" in record.fields:
        return record.text("question")
    inner = record.value("extra_info") or {}  # verl's
    if isinstance(inner, dict) and inner.get("question") is not None:
        return Record(record.place, inner).text("question")
    if record.get("prompt") is not None:
        return Record(record.place, {"question": _asked(record.value("prompt"))}).text("question")
    return record.text("question")  # says which keys there are


def _asked(prompt: Any) -> Any:
    """The question inside a chat prompt: what follows the last "Question:" of the last user message."""
    if isinstance(prompt, list):
        said = [m.get("content") for m in prompt if isinstance(m, dict) and m.get("role") == "user"]
        prompt = said[-1] if said else None
    return prompt.rpartition("Question:")[2] if isinstance(prompt, str) else prompt


def _answers(record: Record) -> tuple[str, ...]:
    """The answers that are not blank, each once, in their order; at least one."""
    if not record.fields.keys() & {*_ANSWER_KEYS, "reward_model"}:
        raise DataError(
            record.place,
            f"no answers among the keys {short_repr(sorted(record.fields))}",
            "'golden_answers' (FlashRAG), 'answer' (HotpotQA, 2Wiki, MuSiQue) or 'reward_model' (Search-R1, verl)",
            "Convert the file to one of these formats.",
        )
    key = next((key for key in _ANSWER_KEYS if record.get(key) is not None), "reward_model")
    values = _ground_truth(record) if key == "reward_model" else record.value(key)
    listed = [values] if isinstance(values, str) else values
    answers = tuple(dict.fromkeys(record.texts(key, listed, "answers", unwrap=True)))
    if not answers:
        own = record.get("id", "_id")
        raise DataError(
            record.place,
            f"question {short_repr(own if own is not None else record.get('question'))} has no golden answer",
            "at least one",
            "Drop the question.",
        )
    return answers


def _ground_truth(record: Record) -> Any:
    """reward_model.ground_truth.target, or ground_truth where it is the answer itself."""
    model = record.value("reward_model")
    truth = record.read("ground_truth", model.get("ground_truth")) if isinstance(model, dict) else None
    return record.read("target", truth.get("target")) if isinstance(truth, dict) else truth


def _type(record: Record) -> str | None:
    said = record.get("type")
    if isinstance(said, str) and said.strip():
        return record.unicode("type", said.strip())
    source_id = record.get("id")
    if record.get("question_decomposition") and isinstance(source_id, str) and "hop" in source_id:
        return source_id.partition("__")[0]  # MuSiQue's ids begin with the shape of the reasoning: 3hop1__…
    return None
