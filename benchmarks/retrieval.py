"""Measure retrieval: `python -m benchmarks.retrieval {quality,load,indexes} …`; prints a Markdown table.

quality  recall and MRR of BM25, dense and hybrid, each with each reranker, against the questions' gold passages
load     queries a second and latency of the Serve app, for 1, 8 and 64 callers
indexes  size, recall and speed of flat, fp16, HNSW and IVF-PQ; sets larger than the corpus are made by moving copies of
         its vectors, and say nothing about larger real corpora but how the indexes grow
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("retrieval")  # before what takes seconds to import

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from calibadv.data.corpus import load_corpus
from calibadv.data.questions import load_questions
from calibadv.search.embeddings import load_or_embed
from calibadv.search.encoder import Encoder
from calibadv.search.reading import add_search_flags, flagged_search, parse_flags
from calibadv.search.settings import RERANKERS, RETRIEVERS, SearchConfig
from calibadv.tables import markdown_rows
from calibadv.types import Question
from workflows.command import command_parser, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured. The table goes to standard output, progress to standard error."""
    args = parse_flags(_parser(), arguments)
    config = flagged_search(args)
    cache_dir = Path(args.cache_dir).absolute()
    cache_dir.mkdir(parents=True, exist_ok=True)
    questions = load_questions(Path(args.questions))
    sys.stdout.write(
        {"quality": _quality, "load": _load, "indexes": _indexes}[args.what](args, config, questions, cache_dir)
    )
    return 0


def _quality(args: argparse.Namespace, config: SearchConfig, questions: list[Question], cache_dir: Path) -> str:
    from benchmarks.retrieval_quality import HEAD, quality_rows

    documents = load_corpus(Path(args.corpus))
    return markdown_rows(HEAD, quality_rows(questions, documents, config, args.retrievers, args.rerankers, cache_dir))


def _load(args: argparse.Namespace, config: SearchConfig, questions: list[Question], cache_dir: Path) -> str:
    from benchmarks.retrieval_load import HEAD, load_rows
    from calibadv.cluster.ray_session import ray_at

    # What an agent sends: sub-queries where the data set has them.
    queries = [text for question in questions for text in question.sub_queries or (question.text,)]
    with ray_at():
        rows = load_rows(queries, Path(args.corpus), config, args.callers, args.by, args.seconds, cache_dir)
    return markdown_rows(HEAD, rows)


def _indexes(args: argparse.Namespace, config: SearchConfig, questions: list[Question], cache_dir: Path) -> str:
    from benchmarks.retrieval_indexes import HEAD, index_rows

    documents = load_corpus(Path(args.corpus))
    encoder = Encoder(config)
    vectors_ND = load_or_embed(documents, encoder, cache_dir, tokens=False).vectors
    row_of = {document.id: row for row, document in enumerate(documents)}
    gold_rows = [[row_of[doc_id] for doc_id in question.gold_doc_ids if doc_id in row_of] for question in questions]
    queries_BD = encoder.encode_queries([question.text for question in questions]).vectors
    return markdown_rows(HEAD, index_rows(vectors_ND, queries_BD, gold_rows, args.sizes, args.noise, config))


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("questions", help="a question file with gold passages (MuSiQue, HotpotQA, prepared parquet)")
    shared.add_argument("corpus", help="its corpus file or store")
    shared.add_argument("--cache-dir", default=".cache/search")
    parser = command_parser(__doc__, prog="python -m benchmarks.retrieval")
    of = parser.add_subparsers(dest="what", required=True)
    quality = of.add_parser("quality", parents=[shared], allow_abbrev=False)
    quality.add_argument("--retrievers", nargs="+", choices=RETRIEVERS, default=["bm25", "dense", "hybrid"])
    quality.add_argument(
        "--rerankers", nargs="+", choices=RERANKERS, default=["none", "late"], help="cross: from a hub"
    )
    add_search_flags(quality)
    load = of.add_parser("load", parents=[shared], allow_abbrev=False)
    load.add_argument("--callers", type=int, nargs="+", default=[1, 8, 64])
    load.add_argument("--by", nargs="+", choices=["handle", "http"], default=["handle", "http"])
    load.add_argument("--seconds", type=float, default=20.0, help="of each number of callers")
    add_search_flags(load, retriever="hybrid", cache_size=0)  # a repeated query would measure the cache
    indexes = of.add_parser("indexes", parents=[shared], allow_abbrev=False)
    indexes.add_argument("--sizes", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    indexes.add_argument("--noise", type=float, default=0.5, help="length of what moves a copy; 0.5: cosine about 0.89")
    add_search_flags(indexes)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
