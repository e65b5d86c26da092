"""Rollouts whose turns wait for their own tool alone, against a lockstep loop (`peers/lockstep.py`), with a slow tool.

The pocket policy in the torch engine, three steps of 16 questions and five rollouts, the same seeds on all sides. With
`max_staleness` 1 a step begins when the last but one is done, as in a run whose learner takes no time. The tool is
simulated: BM25's documents come after a latency drawn from a log-normal of median 50 ms and 99th percentile 3 s, by the
rollout's number. Seconds are CPU seconds of the process plus the latencies in which nothing was computed (see
`simulated_clock.py`).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from math import log as ln
from pathlib import Path
from typing import cast

import numpy as np
import torch
from transformers import AutoTokenizer

from benchmarks.lines import Line, at_least, run
from benchmarks.peers.lockstep import Meeting, in_step_generate, in_step_search
from benchmarks.simulated_clock import SimulatedClock, simulated
from calibadv.data.corpus import load_corpus
from calibadv.data.questions import load_questions
from calibadv.pocket import policy_path, write_pocket_world
from calibadv.pocket.tokenizer import POCKET_TEMPLATE
from calibadv.rollout.agent import Agent, Limits
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.protocols import GenerateFn, Generation, Sampling, SearchFn
from calibadv.rollout.seeds import sampling_seed
from calibadv.rollout.torch_engine import TorchEngine
from calibadv.search.bm25 import Bm25Index
from calibadv.types import Document, IntArray, Question, Trajectory

QUESTIONS, SAMPLES, STEPS = 16, 5, 3
MEDIAN_S, P99_S = 0.05, 3.0
SIGMA = ln(P99_S / MEDIAN_S) / 2.3263  # of the logarithm; the normal's 99th percentile
GOAL = 2.0


def measure() -> list[Line]:
    """A line a staleness: its ratio to the lockstep loop, and the seconds of both."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_pocket_world(folder)
        index = Bm25Index(load_corpus(paths.corpus), folder)
        asked = load_questions(paths.train, name="pocket")[: QUESTIONS * STEPS]
        steps = [asked[start : start + QUESTIONS] for start in range(0, len(asked), QUESTIONS)]
        engine = TorchEngine.from_folder(policy_path(), compute_dtype=torch.float32, max_batch=QUESTIONS * SAMPLES)
        dialogue = TagsDialogue(AutoTokenizer.from_pretrained(policy_path()), "", POCKET_TEMPLATE)
        try:
            lockstep, *ours = (
                simulated(all_steps(steps, dialogue, engine, index, staleness=staleness, lockstep=held))
                for staleness, held in ((0, True), (0, False), (1, False))
            )
        finally:
            engine.close()
    return [
        at_least(
            f"rollouts against a lockstep loop of our own, tool p50 50 ms, p99 3 s, `max_staleness` {staleness}",
            lockstep / taken,
            GOAL,
            more=f" ({taken:.1f} and {lockstep:.1f} s for {STEPS} steps of {QUESTIONS * SAMPLES} rollouts)",
        )
        for staleness, taken in enumerate(ours)
    ]


async def all_steps(
    steps: Sequence[Sequence[Question]],
    dialogue: TagsDialogue,
    engine: GenerateFn,
    index: Bm25Index,
    *,
    staleness: int,
    lockstep: bool,
) -> float:
    """Seconds on the loop's clock until the last rollout of the last step."""
    begun = asyncio.get_running_loop().time()
    running: list[asyncio.Task[list[Trajectory]]] = []
    for number, questions in enumerate(steps):
        if number > staleness:
            await running[number - 1 - staleness]
        rolled = roll_all(questions, dialogue, engine, index, seed=number, lockstep=lockstep)
        running.append(asyncio.ensure_future(rolled))
    await asyncio.gather(*running)
    return asyncio.get_running_loop().time() - begun


async def roll_all(
    questions: Sequence[Question],
    dialogue: TagsDialogue,
    engine: GenerateFn,
    index: Bm25Index,
    *,
    seed: int,
    lockstep: bool,
) -> list[Trajectory]:
    """The rollouts of one step, each of which is the same either way."""
    clock = cast(SimulatedClock, asyncio.get_running_loop())
    meeting = Meeting(len(questions) * SAMPLES)

    async def generate(prompt_ids: IntArray, sampling: Sampling) -> Generation:
        clock.working += 1
        try:
            return await engine(prompt_ids, sampling)
        finally:
            clock.working -= 1

    async def one(number: int, question: Question) -> Trajectory:
        seeds: Callable[[int], int] = lambda turn: sampling_seed(seed, 0, question.id, number, turn)  # noqa: E731
        search = slow(index, latencies(seed, number))
        agent = Agent(
            dialogue,
            in_step_generate(generate, meeting) if lockstep else generate,
            in_step_search(search, meeting) if lockstep else search,
            Limits(4, 128, 48, 192, 1024),
        )
        try:
            return await agent.roll(question, temperature=1.0, seed_of_turn=seeds)
        finally:
            meeting.leave()

    each = [question for question in questions for _ in range(SAMPLES)]
    return list(await asyncio.gather(*(one(number, question) for number, question in enumerate(each))))


def latencies(seed: int, number: int) -> Callable[[], float]:
    """Seconds that the next search of this rollout takes, one after the other."""
    random = np.random.default_rng((seed, number))
    return lambda: float(MEDIAN_S * random.lognormal(0.0, SIGMA))


def slow(index: Bm25Index, latency_s: Callable[[], float]) -> SearchFn:
    """BM25 behind a tool that takes its time."""

    async def search(query: str) -> tuple[Document, ...]:
        await asyncio.sleep(latency_s())
        return tuple(index.search([query], 3)[0])

    return search


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
