"""Questions written from a corpus: `workflows/prepare_data.py questions --from CORPUS OUT.parquet --judge URL …`.

A model behind an OpenAI-compatible API is shown passages and writes questions of one to three hops with their answers.
A question is kept if each answer stands in its passage, the search of the configuration finds that passage, and the
model answers the question with its passages and not without them. What the model said is kept in OUT.replies.sqlite:
the same command goes on where it ended, and asks nothing twice. The API's key is $JUDGE_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from calibadv.authoring.budget import Budget, PaidJudge
from calibadv.authoring.report import Report
from calibadv.authoring.write import Wanted, written_questions
from calibadv.config import Config, load_config
from calibadv.config.command_line import KEYS_TOO, parse
from calibadv.data.corpus import load_corpus
from calibadv.data.errors import DataError
from calibadv.data.preparation.prepare import held_out_path, split_rows
from calibadv.data.schema import QuestionRow, write_questions
from calibadv.rewards.judge import Endpoint, Judge
from calibadv.rollout.protocols import SearchFailed
from calibadv.search.here import search_here
from workflows.command import command_parser
from workflows.shipped import RECIPES, recipe_file

log = logging.getLogger("workflows.prepare_data")

CALLS_A_QUESTION = 20  # the ceiling where none is given


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written, perhaps fewer than wanted. ValueError for what cannot be asked, and where no question is kept."""
    known, overrides = parse(_parser(), arguments)
    config = load_config(known.config or RECIPES / "pocket.toml", overrides)
    wanted = Wanted(known.questions, known.hops, known.name, known.seed, known.concurrency, config.reward.tokens)
    endpoint = Endpoint(known.judge, known.judge_model, known.concurrency, known.timeout_s)
    most_calls = known.questions * CALLS_A_QUESTION if known.max_calls is None else known.max_calls
    budget = Budget(most_calls, known.max_cost, known.price_in, known.price_out)
    rows, report = asyncio.run(_written(known, config, endpoint, budget, wanted))
    if not rows:
        raise DataError(
            known.corpus,
            f"no question was kept ({report.told_fates()})",
            "at least one",
            "See what the model is shown: longer passages, --hops 1, a larger search.top_k or another model.",
        )
    kept, held_out = split_rows(rows, known.hold_out, known.seed)
    if held_out:
        write_questions(held_out, held_out_path(known.out))
        log.info("%s: %d questions held out", held_out_path(known.out), len(held_out))
    log.info("%s: %d questions", known.out, write_questions(kept, known.out))
    return 0


async def _written(
    known: argparse.Namespace, config: Config, endpoint: Endpoint, budget: Budget, wanted: Wanted
) -> tuple[list[QuestionRow], Report]:
    documents = load_corpus(Path(known.corpus))
    search = search_here(config.search, documents, config.run.cache)
    known.out.parent.mkdir(parents=True, exist_ok=True)
    replies = known.out.with_name(f"{known.out.name}.replies.sqlite")
    judge = PaidJudge(Judge(endpoint, "its passages are not asked about"), endpoint.model, replies, budget)
    try:
        rows, report = await written_questions(documents, search, judge, endpoint.model, wanted)
    except SearchFailed as error:
        raise ValueError(f"the search did not answer ({error}): mend [search] of the configuration") from error
    finally:
        log.info("%d calls (%d failed), %d replies from %s", judge.calls, judge.failed, judge.replayed, replies)
        log.info("%d tokens, cost %.4g", judge.tokens, judge.cost)
        judge.close()
    for line in report.told(config.search.top_k):
        log.info("%s", line)
    if report.stopped:
        log.warning("%d of %d questions: %s", len(rows), wanted.questions, report.stopped)
    return rows, report


def _hops(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, prog="prepare_data.py questions", epilog=KEYS_TOO)
    add = parser.add_argument
    add("--from", dest="corpus", required=True, metavar="CORPUS", help="a corpus file or a prepared store")
    add("out", type=Path, help="the parquet file to write")
    add("--judge", required=True, metavar="URL", help="of an OpenAI-compatible API, with its path: http://…/v1")
    add("--judge-model", required=True, metavar="NAME", help="under which it serves the model")
    add("--questions", type=int, default=200, help="how many to write (default: 200)")
    add("--hops", type=_hops, default=(1, 2, 3), metavar="1,2,3", help="of which kinds, in turns (default: 1,2,3)")
    add("--config", type=recipe_file, help="the recipe of the training that comes later: its [search] checks")
    add("--name", default="written", help="the data set, the first part of every id (default: written)")
    add("--seed", type=int, default=0, help="another one draws other passages (default: 0)")
    add("--hold-out", type=int, default=0, help="so many go to OUT's name with -held-out instead")
    add("--concurrency", type=int, default=8, help="questions under way, and calls at a time (default: 8)")
    add("--timeout-s", type=float, default=60.0, help="of one attempt of a call (default: 60)")
    add("--max-calls", type=int, help=f"at most so many calls (default: {CALLS_A_QUESTION} a question)")
    add("--max-cost", type=float, default=math.inf, help="at most so much, in the currency of the prices")
    add("--price-in", type=float, default=0.0, help="of a million prompt tokens")
    add("--price-out", type=float, default=0.0, help="of a million tokens that the model writes")
    return parser
