"""Answers a second of the served agent: `python -m benchmarks.serving [RUN_OR_MODEL] [--section.key …]`.

Starts what `calibadv serve` starts, and lets 1, 8 and 64 askers ask the run's test questions over HTTP, each the next
as soon as it has its answer, and says which process took how much CPU for it. Beside it the same questions through an
evaluation's rollouts. The askers look at the names of events alone: OpenAI's client checks each of them, and takes more
CPU than all that is measured (`--official` asks by it).
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("serving")  # before what takes seconds to import

import argparse
import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from openai import AsyncOpenAI

from calibadv.config import POCKET
from calibadv.config.command_line import flags, split
from calibadv.data.questions import load_questions
from calibadv.evaluation.asking import Ask, ask_model, cluster_rollouts
from calibadv.evaluation.models import EvaluatedModel
from calibadv.tables import markdown_rows
from calibadv.training.inputs import corpus_file
from calibadv.types import Question
from serve.search_client import search_factory
from workflows.command import run_command
from workflows.serve_agent import app_names, parse_command, serving

HEAD = ("askers", "answers", "failed", "answers/s", "first event p50 ms", "p95 ms", "end p50 ms", "p95 ms")
SPENT = ("engine", "front", "search", "ray", "askers")
ASKERS = (1, 8, 64)


@dataclass(frozen=True, slots=True)
class Asked:
    """How long one question took, in seconds."""

    first_s: float  # to the first event that says something of the rollout
    end_s: float
    completed: bool


SAYS = b"event: response.output_item.added"
ENDS = (b"event: response.completed", b"event: response.incomplete")


async def ask(client: httpx.AsyncClient, model: str, question: Question) -> Asked:
    """One streamed answer."""
    begun_s, first_s, ended, rest = time.perf_counter(), 0.0, False, b""
    body = {"model": model, "input": question.text, "stream": True}
    async with client.stream("POST", "responses", json=body) as reply:
        async for piece in reply.aiter_bytes():
            read = rest + piece
            if not first_s and SAYS in read:
                first_s = time.perf_counter() - begun_s
            ended = ended or any(end in read for end in ENDS)
            rest = piece[-len(SAYS) :]  # a name may come in two pieces
    return Asked(first_s, time.perf_counter() - begun_s, ended)


async def ask_officially(client: AsyncOpenAI, model: str, question: Question) -> Asked:
    """The same by OpenAI's client."""
    begun_s, first_s, last = time.perf_counter(), 0.0, ""
    async for event in await client.responses.create(model=model, input=question.text, stream=True):
        if event.type == "response.output_item.added" and not first_s:
            first_s = time.perf_counter() - begun_s
        last = event.type
    return Asked(first_s, time.perf_counter() - begun_s, last in ("response.completed", "response.incomplete"))


async def load(
    url: str, model: str, questions: Sequence[Question], askers: int, *, official: bool
) -> tuple[list[Asked], float]:
    """(every answer, wall time in seconds) of so many askers, who share the questions."""
    waiting = iter(questions)
    answers: list[Asked] = []
    base = f"{url}v1/"
    async with (
        AsyncOpenAI(base_url=base, api_key="none", max_retries=0, timeout=300) as theirs,
        httpx.AsyncClient(base_url=base, timeout=300, limits=httpx.Limits(max_connections=askers)) as ours,
    ):

        async def asker(mine: Iterator[Question]) -> None:
            for question in mine:
                one = ask_officially(theirs, model, question) if official else ask(ours, model, question)
                answers.append(await one)

        begun_s = time.perf_counter()
        await asyncio.gather(*(asker(waiting) for _ in range(askers)))
    return answers, time.perf_counter() - begun_s


REPLICA = re.compile(r"ServeReplica:[^:]+:(\w+)")  # of an app's deployment
PARTS = {"policy": "engine", "front": "front", "search": "search"}


def cpu_s() -> Counter[str]:
    """CPU seconds so far of the askers, and of each part of the service."""
    spent: Counter[str] = Counter()
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            line, times = " ".join(process.cmdline()), process.cpu_times()
            replica = REPLICA.search(line)
            part = PARTS.get(replica[1], "ray") if replica else "ray"
            spent["askers" if process.pid == me.pid else part] += times.user + times.system
    return spent


def row(askers: int, answers: Sequence[Asked], wall_s: float, spent: Counter[str]) -> list[str | int | float]:
    """A row of `HEAD`, then CPU milliseconds an answer of each part of `SPENT`."""
    done = [answer for answer in answers if answer.completed]
    first = [1000 * answer.first_s for answer in done]
    end = [1000 * answer.end_s for answer in done]
    quantiles = [round(float(q)) for times in (first, end) for q in np.percentile(times, [50, 95])]
    each = [round(1000 * spent[part] / len(answers), 1) for part in SPENT]
    return [askers, len(done), len(answers) - len(done), round(len(done) / wall_s, 1), *quantiles, *each]


def evaluation_rate(model: EvaluatedModel, questions: Sequence[Question]) -> tuple[float, float]:
    """(answers a second, CPU ms an answer) of the evaluation's rollouts, from the first that came to the last: engines
    start before."""
    asks = [Ask("served", question) for question in questions]
    _, app = app_names(model.config.serve.port)
    search = search_factory(model.config.search, app)
    times_s, spent = [], []
    for _ in ask_model(asks, model, search, cluster_rollouts):
        times_s.append(time.perf_counter())
        if len(times_s) in (1, len(asks)):
            spent.append(cpu_s().total())
    answers = len(times_s) - 1
    return answers / (times_s[-1] - times_s[0]), 1000 * (spent[-1] - spent[0]) / answers


def main(arguments: Sequence[str] | None = None) -> int:
    """0; prints a table."""
    own, values = split(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--askers", type=int, nargs="+", default=ASKERS)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--official", action="store_true", help="ask by OpenAI's client")
    parser.add_argument("--no-evaluation", action="store_true", help="leave the evaluation's rollouts out")
    known = parser.parse_args(own)
    settings = flags({"cluster.logical_cpus": 16, **values})  # for the evaluation's engines beside the served one
    model = parse_command([*([known.model] if known.model else []), *settings])
    with serving(model) as url:
        test = model.config.data.test
        questions = load_questions(corpus_file(model.config).parent / "test.jsonl" if test == POCKET else Path(test))

        def measured(asked: Sequence[Question], askers: int) -> list[str | int | float]:
            before = cpu_s()
            answers, wall_s = asyncio.run(load(url, model.name, asked, askers, official=known.official))
            return row(askers, answers, wall_s, cpu_s() - before)

        measured(questions[:64], 64)  # not shown: the first answers warm caches up
        asked = questions[: known.questions]
        rows = [measured(asked, count) for count in known.askers]
        sys.stdout.write(markdown_rows((*HEAD, *(f"{part} CPU ms" for part in SPENT)), rows))
        if not known.no_evaluation:
            rate, each_ms = evaluation_rate(model, asked)
            sys.stdout.write(f"evaluation's rollouts: {rate:.1f} answers/s, {each_ms:.0f} CPU ms an answer\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
