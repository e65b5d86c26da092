"""What `prepare_data.py` can be told, a parser for each thing that it prepares."""

from __future__ import annotations

import argparse
from pathlib import Path

from calibadv.data.documents.splitting import Window
from workflows.command import command_parser


def preparation_parser(description: str) -> argparse.ArgumentParser:
    """The parser; `kind` is what is to be prepared."""
    parser = command_parser(description)
    commands = parser.add_subparsers(required=True, dest="kind", metavar="questions|paper|corpus|from-feedback")

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

    paper = commands.add_parser("paper", help="the paper's training mix and its seven test sets -> parquet")
    paper.add_argument("out", type=Path, help="the folder to write")
    paper.add_argument("--local", type=Path, help="a copy of FlashRAG's collection (default: the hub)")

    corpus = commands.add_parser("corpus", help="a corpus file -> memory-mapped store; a folder of documents -> jsonl")
    corpus.add_argument("source", type=Path, help="jsonl, JSON, csv or tsv, also .gz; or parquet; or a folder")
    corpus.add_argument("out", type=Path, help="the folder to write, of documents a .jsonl; given as data.corpus")
    corpus.add_argument("--words", type=int, default=Window().words, help="of a passage of documents (default: 100)")
    corpus.add_argument(
        "--overlap", type=int, default=Window().overlap, help="words shared with the next (default: 20)"
    )

    feedback = commands.add_parser("from-feedback", help="thumbs of the served agent -> parquet")
    feedback.add_argument(
        "source", help="the file of thumbs, runs/feedback.jsonl; or the run or model whose traces in MLflow have them"
    )
    feedback.add_argument("out", type=Path, help="the parquet file to write")
    feedback.add_argument("--name", default="feedback", help="the data set, the first part of every id")

    for reads in (questions, paper, corpus, feedback):
        reads.add_argument("--skip-bad", action="store_true", help="leave bad rows out; count and list them")
    for asks in (questions, feedback):
        asks.add_argument("--against", type=Path, action="append", default=[], help="a test set to find overlap with")
    for compares in (questions, paper, feedback):
        compares.add_argument("--drop-overlap", action="store_true", help="leave out what a test set asks too")
    return parser
