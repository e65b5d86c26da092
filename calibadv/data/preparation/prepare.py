"""Prepares questions and corpora: any format in, the one parquet schema or a memory-mapped store out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from calibadv.data.corpus import places_of_id, read_documents
from calibadv.data.corpus_store import CorpusStore, build_store
from calibadv.data.errors import RepeatedId
from calibadv.data.overlap import Shared, shared_questions
from calibadv.data.preparation.skipping import skip_list
from calibadv.data.questions import read_question_rows
from calibadv.data.schema import QuestionRow, write_questions
from calibadv.data.tally import REPEATED, Tally

log = logging.getLogger("workflows.prepare_data")

_SHOWN = 3  # examples of an overlap in the log; the file has all


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of one question set."""

    path: Path
    written: int
    tally: Tally  # of the source's rows
    shared: int  # questions that are asked elsewhere too, dropped or not
    held_out: int = 0  # questions in the file of `held_out_path`


def prepare_questions(
    source: Path,
    out: Path,
    *,
    name: str | None,
    fallback: str,
    skip_bad: bool = False,
    against: Sequence[Path] = (),
    drop_overlap: bool = False,
    hold_out: int = 0,
    hold_out_seed: int = 0,
) -> Prepared:
    """Writes the questions of `source` to `out`, and says which of them the files `against` ask too.

    `name` and `fallback` name the data set as in `read_question_rows`. With `hold_out`, so many of them (`split_rows`)
    go to `held_out_path(out)` instead.
    """
    with skip_list(out, skip=skip_bad) as skipped:
        tally = Tally()
        rows = list(read_question_rows(source, name=name, fallback=fallback, on_bad=skipped, tally=tally))
        others = [row for other in against for row in read_question_rows(other)]
        kept, shared = without_overlap(rows, others, out, drop=drop_overlap)
        kept, held_out = split_rows(kept, hold_out, hold_out_seed)
        if held_out:
            write_questions(held_out, held_out_path(out))
        return Prepared(out, write_questions(kept, out), tally, len(shared), len(held_out))


def held_out_path(out: Path) -> Path:
    """Where the held-out questions of `out` lie: data/musique.parquet -> data/musique-held-out.parquet."""
    return out.with_name(f"{out.stem}-held-out.parquet")


def split_rows(rows: Sequence[QuestionRow], held_out: int, seed: int) -> tuple[list[QuestionRow], list[QuestionRow]]:
    """(the rest, the `held_out` rows whose hash of (seed, id) is smallest), both in the order of `rows`.

    The same questions are chosen in whatever order they come. ValueError unless 0 <= held_out < len(rows).
    """
    if not 0 <= held_out < max(len(rows), 1):
        raise ValueError(
            f"--hold-out {held_out} of {len(rows)} questions; expected at least 0 and at most {len(rows) - 1}: "
            "at least one must be left to train on"
        )
    by_hash = sorted(rows, key=lambda row: (hashlib.blake2b(f"{seed}\0{row.id}".encode()).digest(), row.id))
    chosen = {row.id for row in by_hash[:held_out]}
    return [row for row in rows if row.id not in chosen], [row for row in rows if row.id in chosen]


def without_overlap(
    rows: list[QuestionRow], others: Sequence[QuestionRow], out: Path, *, drop: bool
) -> tuple[list[QuestionRow], list[Shared]]:
    """(the rows that are left, what they share with `others`). What is shared is listed beside `out`, one a line."""
    listing = out.with_name(f"{out.name}.overlap.tsv")
    listing.unlink(missing_ok=True)
    shared = shared_questions(((row.id, row.question) for row in rows), ((row.id, row.question) for row in others))
    if not shared:
        return rows, shared
    listing.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{found.id}\t{found.other_id}\t{' '.join(found.question.split())}\n" for found in shared)
    listing.write_text("".join(lines), encoding="utf-8")
    for found in shared[:_SHOWN]:
        log.warning("overlap: %s is also %s: %r", found.id, found.other_id, found.question)
    log.warning(
        "overlap: %d of %d questions are also in the sets to compare with; %s; all are listed in %s",
        len(shared),
        len(rows),
        "left out" if drop else "kept (--drop-overlap leaves them out)",
        listing,
    )
    if not drop:
        return rows, shared
    out_ids = {found.id for found in shared}
    return [row for row in rows if row.id not in out_ids], shared


def prepare_corpus(source: Path, out: Path, *, skip_bad: bool = False) -> tuple[CorpusStore, Tally]:
    """(the store in `out`, what became of the source's rows). DataError names the file and the line of a bad one."""
    tally = Tally()
    with skip_list(out, skip=skip_bad) as skipped:
        try:
            store = build_store(read_documents(source, skipped, tally), out, skipped)
        except RepeatedId as error:
            # The store knows documents by their number only; a file that has to be mended is worth a second reading.
            first, second = islice(places_of_id(source, error.doc_id), 2)
            raise RepeatedId(second, error.doc_id, first) from error
    tally.leave_out(REPEATED, store.manifest.repeated)
    tally.refuse(store.manifest.skipped)
    return store, tally
