"""Sampled tokens a CPU second of our vLLM engines, beside plain vLLM on the same requests.

First turns of 32 pocket questions, five each, with the seeds, stops and log-probs of training; all at once. Each side
has a process of its own (ours changes vLLM's CPU sampler for the process that it is in), and they take turns. Of a
process the first round is left out; CPU seconds are its own and those of its children.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from transformers import AutoTokenizer

from benchmarks.lines import Line, at_least, run, tree_cpu_s
from calibadv.data.questions import load_questions
from calibadv.pocket import policy_path, write_pocket_world
from calibadv.pocket.tokenizer import POCKET_TEMPLATE
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.protocols import GenerateFn, Sampling
from calibadv.rollout.seeds import sampling_seed
from calibadv.tags import PRE_THINK
from calibadv.types import IntArray

QUESTIONS, SAMPLES = 32, 5
MAX_TOKENS, TURN_TOKENS, SEQUENCES = 1024, 64, 256
TURNS, ROUNDS = 2, 4  # processes of a side, and rounds in each
SIDES = {"plain": "plain vLLM", "engine": "our engine", "process": "our engine, `rollout.engine_process`"}


def measure() -> list[Line]:
    """A line an engine: how many times the tokens a CPU second of plain vLLM."""
    best = dict.fromkeys(SIDES, 0.0)
    for _ in range(TURNS):
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.rollouts", side]
            made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            best[side] = max(best[side], json.loads(made.stdout.rstrip("\n").rpartition("\n")[2]))
    return [
        at_least(
            f"first turns of rollouts, {told}, against plain vLLM",
            best[side] / best["plain"],
            0.9,
            more=f" ({best[side]:,.0f} and {best['plain']:,.0f} tokens a CPU second)",
        )
        for side, told in SIDES.items()
        if side != "plain"
    ]


def tokens_a_second(side: str) -> float:
    """The most of the rounds but the first, in this process."""
    prompts, samplings = requests()
    sample, rates, me = sampler(side), [], psutil.Process()
    for _ in range(ROUNDS):
        begun = tree_cpu_s(me)
        tokens = sample(prompts, samplings)
        rates.append(tokens / (tree_cpu_s(me) - begun))
    return max(rates[1:])


def requests() -> tuple[list[IntArray], list[Sampling]]:
    """Prompts [P] and what is asked for, a rollout each."""
    dialogue = TagsDialogue(AutoTokenizer.from_pretrained(policy_path()), PRE_THINK, POCKET_TEMPLATE)
    with tempfile.TemporaryDirectory() as folder:
        questions = load_questions(write_pocket_world(Path(folder)).train)[:QUESTIONS]
    asked = [(question, sample) for question in questions for sample in range(SAMPLES)]
    seeds = [sampling_seed(0, 1, question.id, sample) for question, sample in asked]
    return (
        [dialogue.prompt_ids(question.text) for question, _ in asked],
        [Sampling(TURN_TOKENS, 1.0, seed, dialogue.stop) for seed in seeds],
    )


def sampler(side: str) -> Callable[[Sequence[IntArray], Sequence[Sampling]], int]:
    """How many tokens a side samples for requests."""
    if side == "plain":
        from benchmarks.peers.plain_vllm import PlainVllm

        return PlainVllm(policy_path(), MAX_TOKENS, SEQUENCES).tokens
    from calibadv.cluster.vllm_engine import VllmEngine
    from calibadv.cluster.vllm_process_engine import VllmProcessEngine
    from calibadv.cluster.vllm_settings import VllmSettings

    kind = VllmProcessEngine if side == "process" else VllmEngine
    engine = kind(VllmSettings(str(policy_path()), "float32", MAX_TOKENS, SEQUENCES))
    return lambda prompts, samplings: asyncio.run(_tokens(engine, prompts, samplings))


async def _tokens(engine: GenerateFn, prompts: Sequence[IntArray], samplings: Sequence[Sampling]) -> int:
    done = await asyncio.gather(*(engine(*request) for request in zip(prompts, samplings, strict=True)))
    return sum(len(generation.ids) for generation in done)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in SIDES:
        sys.stdout.write(f"{json.dumps(tokens_a_second(sys.argv[1]))}\n")
        sys.stdout.flush()
        sys.exit(0)
    sys.exit(run(measure, __doc__))
