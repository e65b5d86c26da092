"""Prepare data: `workflows/prepare_data.py questions|paper|corpus|from-feedback …`; `--help` after each.

Questions of any known format become one parquet schema, corpora a memory-mapped store, thumbs of the served agent
questions with the answers that were accepted (docs/data.md has all). Bad rows are refused with their file and line;
`--skip-bad` counts and lists them instead.
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("prepare_data")  # before what takes seconds to import

import argparse
import logging
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from calibadv.data.documents.splitting import Window
from calibadv.data.preparation.documents import prepare_documents
from calibadv.data.preparation.paper import local_fetch, prepare_paper, report_rows
from calibadv.data.preparation.prepare import held_out_path, prepare_corpus, prepare_questions
from calibadv.data.preparation.sources import hub_file, question_file
from calibadv.data.row_report import say_rows
from workflows.command import run_command
from workflows.from_feedback import from_feedback
from workflows.preparation_options import preparation_parser

log = logging.getLogger("workflows.prepare_data")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written. Raises `DataError` for what cannot be read."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["questions"] and any(word.partition("=")[0] == "--from" for word in given):
        from workflows.questions_from import main as questions_from

        return questions_from(given[1:])
    known = preparation_parser(__doc__ or "").parse_args(given)
    {"questions": _questions, "paper": _paper, "corpus": _corpus, "from-feedback": from_feedback}[known.kind](known)
    return 0


def _questions(known: argparse.Namespace) -> None:
    path, dataset = question_file(known.source, known.split)
    prepared = prepare_questions(
        path,
        known.out,
        name=known.name,
        fallback=dataset,
        skip_bad=known.skip_bad,
        against=known.against,
        drop_overlap=known.drop_overlap,
        hold_out=known.hold_out,
        hold_out_seed=known.hold_out_seed,
    )
    if prepared.held_out:
        log.info("%s: %d questions held out", held_out_path(prepared.path), prepared.held_out)
    say_rows("questions", path, prepared.tally)
    log.info("%s: %d questions, %d shared with the test sets", prepared.path, prepared.written, prepared.shared)


def _paper(known: argparse.Namespace) -> None:
    fetch = local_fetch(known.local) if known.local else hub_file
    counts = prepare_paper(fetch, known.out, skip_bad=known.skip_bad, drop_overlap=known.drop_overlap)
    table = Table("data set", "split", "questions", "paper", "skipped", title=str(known.out))
    for row in report_rows(counts):
        table.add_row(*row)
    Console().print(table)


def _corpus(known: argparse.Namespace) -> None:
    start = time.perf_counter()
    if known.source.is_dir():
        found = prepare_documents(known.source, known.out, Window(known.words, known.overlap))
        seconds = time.perf_counter() - start
        log.info("%s: %d of %d files read in %.0f s", known.source, found.read, found.files, seconds)
        log.info("%s: %d passages, %d repeated ones left out", known.out, found.passages, found.repeated)
        return
    store, tally = prepare_corpus(known.source, known.out, skip_bad=known.skip_bad)
    say_rows("corpus", known.source, tally)
    seconds = time.perf_counter() - start
    log.info("%s: %d passages in %.0f s, fingerprint %s", known.out, len(store), seconds, store.fingerprint)


if __name__ == "__main__":
    sys.exit(run_command(main))
