"""The paper's data: the training mix, the seven test sets, and how many questions each has (CalibAdv appendix H)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from calibadv.data.errors import DataError
from calibadv.data.preparation.prepare import without_overlap
from calibadv.data.preparation.skipping import skip_list
from calibadv.data.preparation.sources import HUB_REPOSITORY
from calibadv.data.questions import read_question_rows
from calibadv.data.row_report import say_rows
from calibadv.data.schema import QuestionRow, write_questions
from calibadv.data.tally import Tally

log = logging.getLogger("workflows.prepare_data")


@dataclass(frozen=True, slots=True)
class PaperSet:
    """A split of a data set of FlashRAG's collection, and how many questions it has in the paper."""

    dataset: str
    split: str
    questions: int


TRAIN = (PaperSet("hotpotqa", "train", 90_447), PaperSet("2wikimultihopqa", "train", 15_000))
TESTS = (
    PaperSet("nq", "test", 3_610),
    PaperSet("triviaqa", "test", 11_313),
    PaperSet("popqa", "test", 14_267),
    PaperSet("hotpotqa", "dev", 7_405),
    PaperSet("2wikimultihopqa", "dev", 12_576),
    PaperSet("musique", "dev", 2_417),
    PaperSet("bamboogle", "test", 125),
)

Fetch = Callable[[str, str], Path]
"""(data set, split) -> its file on this machine."""


@dataclass(frozen=True, slots=True)
class PaperCount:
    """How many questions a set was found to have, beside the paper's number."""

    wanted: PaperSet
    found: int
    skipped: int


def prepare_paper(fetch: Fetch, out: Path, *, skip_bad: bool = False, drop_overlap: bool = False) -> list[PaperCount]:
    """Writes `train.parquet`, `test.parquet` and each test set as `test/DATASET.parquet` into `out`; says what differs.

    Returns the counts, training sets first. All files are fetched before the first one is read.
    """
    files = {wanted: fetch(wanted.dataset, wanted.split) for wanted in (*TRAIN, *TESTS)}
    counts: list[PaperCount] = []

    def rows_of(wanted: PaperSet, written: Path) -> list[QuestionRow]:
        with skip_list(written.with_name(f"{wanted.dataset}-{wanted.split}"), skip=skip_bad) as skipped:
            tally = Tally()
            rows = list(read_question_rows(files[wanted], name=wanted.dataset, on_bad=skipped, tally=tally))
        say_rows(f"{wanted.dataset} {wanted.split}", files[wanted], tally)
        counts.append(PaperCount(wanted, len(rows), tally.refused))
        _warn_of_difference(counts[-1])
        return rows

    train_file = out / "train.parquet"
    train = list(chain.from_iterable(rows_of(wanted, train_file) for wanted in TRAIN))
    tests = {wanted: rows_of(wanted, out / "test.parquet") for wanted in TESTS}
    for wanted, rows in tests.items():
        write_questions(rows, out / "test" / f"{wanted.dataset}.parquet")
    every_test = list(chain.from_iterable(tests.values()))
    write_questions(every_test, out / "test.parquet")
    train, _ = without_overlap(train, every_test, train_file, drop=drop_overlap)
    write_questions(train, train_file)
    return counts


def local_fetch(folder: Path) -> Fetch:
    """A `Fetch` of a copy of FlashRAG's collection: `folder/DATASET/SPLIT.jsonl`, or `.jsonl.gz`."""

    def fetch(dataset: str, split: str) -> Path:
        plain = folder / dataset / f"{split}.jsonl"
        found = next((path for path in (plain, plain.with_name(f"{plain.name}.gz")) if path.is_file()), None)
        if found is None:
            raise DataError(
                str(plain),
                "no such file",
                "a folder for each data set, a jsonl for each split",
                f"See {HUB_REPOSITORY}.",
            )
        return found

    return fetch


def difference(count: PaperCount) -> str | None:
    """The difference to the paper in words, None where there is none."""
    wanted, found = count.wanted, count.found
    if found == wanted.questions:
        return None
    less = "fewer" if found < wanted.questions else "more"
    return (
        f"{wanted.dataset} {wanted.split} has {found:,} questions, the paper {wanted.questions:,}: "
        f"{abs(found - wanted.questions):,} {less}"
    )


def _warn_of_difference(count: PaperCount) -> None:
    if said := difference(count):
        skipped = f" ({count.skipped} bad rows were skipped)" if count.skipped else ""
        log.warning("%s%s; results do not compare exactly", said, skipped)


def report_rows(counts: list[PaperCount]) -> Iterator[tuple[str, ...]]:
    """(data set, split, found, paper, skipped) of each count, as a table shows them."""
    for count in counts:
        yield (
            count.wanted.dataset,
            count.wanted.split,
            f"{count.found:,}",
            f"{count.wanted.questions:,}",
            f"{count.skipped:,}",
        )
