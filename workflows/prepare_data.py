"""Prepare data: `workflows/prepare_data.py questions|paper|corpus|from-feedback …`; `--help` after each.

Questions of any known format become one parquet schema, corpora a memory-mapped store, thumbs of the served agent
questions with the answers that were accepted (docs/data.md has all). Bad rows are refused with their file and line;
`--skip-bad` counts and lists them instead.
"""

from __future__ import annotations

from calibadv.tracking.starting import loading, say_starting

if __name__ == "__main__":
    say_starting("prepare_data")  # before what takes seconds to import

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from calibadv.config import POCKET
from calibadv.data.documents.splitting import Window
from calibadv.data.preparation.documents import prepare_documents
from calibadv.data.preparation.feedback import prepare_feedback, write_accepted
from calibadv.data.preparation.paper import local_fetch, prepare_paper, report_rows
from calibadv.data.preparation.prepare import held_out_path, prepare_corpus, prepare_questions
from calibadv.data.preparation.sources import hub_file, question_file
from calibadv.data.row_report import say_rows
from calibadv.data.tally import Tally
from calibadv.tracking.registered import is_registered
from workflows.command import run_command
from workflows.runs import found_run
from workflows.shipped import RECIPES

if TYPE_CHECKING:
    from calibadv.tracking.assessed import Assessed

log = logging.getLogger("workflows.prepare_data")  # also when this file is __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written. Raises `DataError` for what cannot be read."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["questions"] and any(word.partition("=")[0] == "--from" for word in given):
        from workflows.questions_from import main as questions_from

        return questions_from(given[1:])
    known = _parser().parse_args(given)
    command: Callable[[argparse.Namespace], None] = known.command
    command(known)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="questions|paper|corpus|from-feedback")

    questions = commands.add_parser(
        "questions",
        help="one question set -> parquet; --from CORPUS: a model writes them",
        epilog="A model writes them from a corpus: questions --from CORPUS OUT --judge URL …",
    )
    questions.add_argument("source", help="a file, or a data set of FlashRAG's collection on the hub, e.g. hotpotqa")
    questions.add_argument("out", type=Path, help="the parquet file to write")
    questions.add_argument("--name", help="the data set, the first part of every id (default: by the source)")
    questions.add_argument("--split", default="train", help="of a data set on the hub (default: train)")
    questions.add_argument("--hold-out", type=int, default=0, help="so many go to OUT's name with -held-out instead")
    questions.add_argument("--hold-out-seed", type=int, default=0, help="other questions are held out (default: 0)")
    questions.set_defaults(command=_questions)

    paper = commands.add_parser("paper", help="the paper's training mix and its seven test sets -> parquet")
    paper.add_argument("out", type=Path, help="the folder to write")
    paper.add_argument("--local", type=Path, help="a copy of FlashRAG's collection (default: the hub)")
    paper.set_defaults(command=_paper)

    corpus = commands.add_parser("corpus", help="a corpus file -> memory-mapped store; a folder of documents -> jsonl")
    corpus.add_argument("source", type=Path, help="jsonl, JSON, csv or tsv, also .gz; or parquet; or a folder")
    corpus.add_argument("out", type=Path, help="the folder to write, of documents a .jsonl; given as data.corpus")
    corpus.add_argument("--words", type=int, default=Window().words, help="of a passage of documents (default: 100)")
    corpus.add_argument(
        "--overlap", type=int, default=Window().overlap, help="words shared with the next (default: 20)"
    )
    corpus.set_defaults(command=_corpus)

    feedback = commands.add_parser("from-feedback", help="thumbs of the served agent -> parquet")
    feedback.add_argument(
        "source", help="the file of thumbs, runs/feedback.jsonl; or the run or model whose traces in MLflow have them"
    )
    feedback.add_argument("out", type=Path, help="the parquet file to write")
    feedback.add_argument("--name", default="feedback", help="the data set, the first part of every id")
    feedback.set_defaults(command=_feedback)

    for reads in (questions, paper, corpus, feedback):
        reads.add_argument("--skip-bad", action="store_true", help="leave bad rows out; count and list them")
    for asks in (questions, feedback):
        asks.add_argument("--against", type=Path, action="append", default=[], help="a test set to find overlap with")
    for compares in (questions, paper, feedback):
        compares.add_argument("--drop-overlap", action="store_true", help="leave out what a test set asks too")
    return parser


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


def _feedback(known: argparse.Namespace) -> None:
    given, wanted = known.source, {"name": known.name, "against": known.against, "drop_overlap": known.drop_overlap}
    if Path(given).is_file() or not (is_registered(given) or given == POCKET or found_run(given)):
        where = given
        prepared = prepare_feedback(Path(given), known.out, skip_bad=known.skip_bad, **wanted)
    else:
        said = _assessed(given)
        where, tally = said.place, Tally(len(said.thumbs), len(said.thumbs))
        if said.wordless:
            log.warning("%d thumbs are of traces without words (serve.trace_text), and left out", said.wordless)
        prepared = write_accepted(said.thumbs, known.out, tally, place=f"{given} in {where}", **wanted)
    say_rows("feedback", where, prepared.tally)
    log.info("%s: %d questions, %d shared with the test sets", prepared.path, prepared.written, prepared.shared)


def _assessed(given: str) -> Assessed:
    """The thumbs of a served model's traces. ValueError for what is no model, or where MLflow does not answer."""
    with loading():
        from mlflow.exceptions import MlflowException

        from calibadv.evaluation.models import find_models
        from calibadv.tracking.assessed import assessed
        from calibadv.tracking.served import ServedStore
    (model,) = find_models([str(found_run(given) or given)], None, {}, RECIPES / "pocket.toml")
    store = ServedStore.of(model.config, model.folder)
    try:
        return assessed(store, model.name)
    except MlflowException as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"the traces of {given} cannot be read ({said}): give the file of thumbs") from error


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


def cli() -> int:
    """The command as it is called: `main`, with what every command does around it."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(cli())
