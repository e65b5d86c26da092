"""The one schema of prepared questions (docs/data.md): a row, its parquet columns, and the question that trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from calibadv.data.errors import DataError
from calibadv.data.record import Record
from calibadv.files import whole_file
from calibadv.refusals import short_repr
from calibadv.types import Question, TokenUnit

COLUMNS = (
    "id",
    "question",
    "golden_answers",
    "aliases",
    "hops",
    "type",
    "gold_doc_ids",
    "gold_titles",
    "gold_passages",
    "sub_queries",
    "metadata",
)
_LATER = ("gold_passages",)  # a file without it is read: it was written before there was one
_GROUP_ROWS = 4096  # of one parquet row group: what a writer holds in memory


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """One prepared question: everything its source says of it, under one name for all sources."""

    id: str  # data set and source id, `hotpotqa/5a7…`; never a row number
    question: str
    golden_answers: tuple[str, ...]  # at least one
    aliases: tuple[str, ...] = ()  # further accepted spellings
    hops: int | None = None
    type: str | None = None  # the data set's own word: bridge, comparison, 3hop1, …
    gold_doc_ids: tuple[str, ...] = ()  # corpus ids of the supporting passages (`passage_id` where they have none)
    gold_titles: tuple[str, ...] = ()  # their titles, also of those whose text the source does not give
    sub_queries: tuple[str, ...] = ()  # gold decomposition, in hop order
    metadata: Mapping[str, str] = field(default_factory=dict)  # what else the source says
    gold_passages: tuple[str, ...] = ()  # title, line break, text of each of gold_doc_ids; none where no text is given

    def to_question(self, tokens: TokenUnit = TokenUnit.WORDS) -> Question:
        """The question that trains, scored by `tokens`: aliases are answers, hops and type are metadata."""
        said = {"type": self.type, "hops": None if self.hops is None else str(self.hops)}
        return Question(
            id=self.id,
            text=self.question,
            golden_answers=tuple(dict.fromkeys(self.golden_answers + self.aliases)),
            sub_queries=self.sub_queries,
            gold_doc_ids=self.gold_doc_ids,
            gold_passages=tuple(passage.partition("\n")[2] for passage in self.gold_passages),
            gold_titles=tuple(passage.partition("\n")[0] for passage in self.gold_passages),
            metadata={**self.metadata, **{key: value for key, value in said.items() if value}},
            tokens=tokens,
        )


def question_schema() -> Any:
    """The `pyarrow.Schema` of prepared questions; its own metadata says which schema it is."""
    import pyarrow as pa

    strings = pa.list_(pa.string())
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("question", pa.string(), nullable=False),
            pa.field("golden_answers", strings, nullable=False),
            pa.field("aliases", strings, nullable=False),
            pa.field("hops", pa.int32()),
            pa.field("type", pa.string()),
            pa.field("gold_doc_ids", strings, nullable=False),
            pa.field("gold_titles", strings, nullable=False),
            pa.field("gold_passages", strings, nullable=False),
            pa.field("sub_queries", strings, nullable=False),
            pa.field("metadata", pa.map_(pa.string(), pa.string()), nullable=False),
        ],
        metadata={"calibadv": "questions 1"},
    )


def write_questions(rows: Iterable[QuestionRow], path: Path) -> int:
    """How many rows were written to the parquet file `path`. A reader never meets half a file."""
    import pyarrow as pa
    from pyarrow import parquet

    schema, written, left = question_schema(), 0, iter(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft, parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
        while some := [asdict(row) for row in islice(left, _GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
            written += len(some)
    return written


def is_prepared(record: Record) -> bool:
    """Whether a record is of the prepared schema, perhaps with a column missing: no other has both these keys."""
    return "gold_titles" in record.fields and "sub_queries" in record.fields


def prepared_row(record: Record) -> QuestionRow:
    """The row of a prepared record; DataError where a column is missing or of another type."""
    missing = [column for column in COLUMNS if column not in record.fields and column not in _LATER]
    if missing:
        raise DataError(
            record.place,
            f"no column {missing[0]!r} among {short_repr(sorted(record.fields))}",
            "the columns of docs/data.md",
            "Write the file anew with workflows/prepare_data.py.",
        )
    answers = record.texts("golden_answers", record.value("golden_answers"), unwrap=True)
    if not answers:
        raise DataError(record.place, "'golden_answers' is empty", "at least one", "Drop the question.")
    kind = record.get("type")
    if not isinstance(kind, str | None):
        raise DataError(
            record.place,
            f"'type' is {short_repr(kind)}",
            "a string, or null",
            "Write the file anew with workflows/prepare_data.py.",
        )
    return QuestionRow(
        id=record.text("id"),
        question=record.text("question"),
        golden_answers=answers,
        aliases=record.strings("aliases"),
        hops=record.whole_number("hops"),
        type=kind,
        gold_doc_ids=record.strings("gold_doc_ids"),
        gold_titles=record.strings("gold_titles"),
        gold_passages=record.strings("gold_passages"),
        sub_queries=record.strings("sub_queries"),
        metadata=prepared_metadata(record),
    )


def prepared_metadata(record: Record) -> dict[str, str]:
    """What a prepared record's `metadata` says; parquet reads a map as pairs."""
    return dict(record.get("metadata") or ())
