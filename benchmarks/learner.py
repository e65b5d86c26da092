"""What an update costs: `python -m benchmarks.learner [--policy pocket|wide] [--rounds 5]`; prints a Markdown table.

Rollouts of the pocket policy (32 questions, 5 each: one step of `recipes/pocket.toml`), then the passes of that step's
four updates with rows padded and packed, at several token budgets. CPU seconds of the process, the cases in turn, so
that a busy machine is busy for all of them; of each case the least of the rounds. Against TRL: `benchmarks.trl`.

pocket  the shipped policy: 2 million parameters, a vocabulary of 1,200 words
wide    a random Qwen2 of 47 million parameters with Qwen2.5's vocabulary (151,936), where most arithmetic is the head's
"""

from __future__ import annotations

from calibadv.tracking.starting import say_starting

if __name__ == "__main__":
    say_starting("learner")  # before what takes seconds to import

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from calibadv.batching import Row, shard_groups, to_row
from calibadv.config import LearnerConfig
from calibadv.data.corpus import load_corpus
from calibadv.data.questions import load_questions
from calibadv.methods import make_method
from calibadv.micro_batches import MicroBatch, micro_batches
from calibadv.pocket import policy_path, write_pocket_world
from calibadv.pocket.tokenizer import POCKET_TEMPLATE
from calibadv.rllib.objective import count, loss_terms, to_tensors, total
from calibadv.rllib.packed_attention import PACKED
from calibadv.rllib.policy import load_causal_lm, policy_pass
from calibadv.rollout.agent import Limits
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.group import GroupRoller
from calibadv.rollout.plans import Plan, chains
from calibadv.rollout.torch_engine import TorchEngine
from calibadv.search.bm25 import Bm25Index
from calibadv.tables import markdown_rows
from calibadv.types import Document, Group
from workflows.command import command_parser, run_command

CPU = torch.device("cpu")
QUESTIONS, SAMPLES, MINIBATCHES = 32, 5, 4
BUDGETS = (2048, 8192)
METHOD = make_method("grpo", {})
HEAD = ("what", "rows", "token budget", "micro-batches", "computed / real tokens", "CPU seconds", "times faster")


@dataclass(slots=True)
class Case:
    """One way of making the passes."""

    what: str
    packed: bool
    budget: int
    batches: list[MicroBatch]
    make: Callable[[list[MicroBatch]], None]
    seconds: float = float("inf")  # the least


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured. The table goes to standard output."""
    parser = command_parser(__doc__, prog="python -m benchmarks.learner")
    parser.add_argument("--policy", choices=("pocket", "wide"), default="pocket")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        groups = asyncio.run(rolled_out(Path(folder)))
    model = load_causal_lm(str(policy_path())) if args.policy == "pocket" else wide()
    rows = rows_of(groups)
    cases = all_cases(model, rows, rows_of(groups, whole_groups=True))
    for _ in range(args.rounds):
        for case in cases:
            model.set_attn_implementation(PACKED if case.packed else "sdpa")
            started = time.process_time()
            case.make(case.batches)
            case.seconds = min(case.seconds, time.process_time() - started)
    sys.stdout.write(markdown_rows(HEAD, table(cases, sum(len(row.ids_T) for row in rows))))
    return 0


async def rolled_out(folder: Path, plan: Plan | None = None, questions: int = QUESTIONS) -> list[Group]:
    """The step's groups, by the shipped policy and BM25 over the pocket corpus. `plan`: chains where none is given."""
    paths = write_pocket_world(folder)
    index = Bm25Index(load_corpus(paths.corpus), folder)

    async def search(query: str) -> tuple[Document, ...]:
        return tuple(index.search([query], 3)[0])

    engine = TorchEngine.from_folder(policy_path(), compute_dtype=torch.float32)
    roller = GroupRoller(
        dialogue=TagsDialogue(AutoTokenizer.from_pretrained(policy_path()), "", POCKET_TEMPLATE),
        search=search,
        plan=plan or chains(SAMPLES),
        run_seed=0,
        limits=Limits(4, 128, 48, 192, 1024),
    )
    try:
        asked = load_questions(paths.train, name="pocket")[:questions]
        made = await asyncio.gather(*(roller.train(question, engine, step=0, version=0) for question in asked))
    finally:
        engine.close()
    return [one.group for one in made if one.group is not None]


def rows_of(groups: Sequence[Group], *, whole_groups: bool = False) -> list[Row]:
    """The rows of every rollout, dealt to mini-batches as a run deals them."""
    (shards,) = shard_groups(groups, num_minibatches=MINIBATCHES, num_shards=1, seed=0, whole_groups=whole_groups)
    return [
        to_row(trajectory, advantages_N, minibatch)
        for shard in shards
        for trajectory, advantages_N, minibatch in zip(
            shard.group.trajectories, METHOD.advantages(shard.group), shard.minibatch_G, strict=True
        )
    ]


def wide() -> PreTrainedModel:
    """A random model most of whose arithmetic is in its head."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=151936,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )


def all_cases(model: PreTrainedModel, rows: Sequence[Row], by_group: Sequence[Row]) -> list[Case]:
    """Updates and passes without gradient, padded and packed, by budget; `by_group`: rows of groups drawn whole."""

    def update(batches: list[MicroBatch]) -> None:
        divisors = count(batches, CPU, LearnerConfig())
        for micro in batches:
            batch = to_tensors(micro, CPU)
            stats = policy_pass(model, batch)[1]
            out = {"logprobs_N": stats.logprobs_N, "entropy_N": stats.entropy_N}
            torch.autograd.backward(total(loss_terms(batch, out, divisors, LearnerConfig(), METHOD)))
        model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def recompute(batches: list[MicroBatch]) -> None:
        for micro in batches:
            policy_pass(model, to_tensors(micro, CPU))

    cases = []
    for budget in BUDGETS:
        for packed in (False, True):
            for what, of in (("four updates", rows), ("four updates, groups drawn whole", by_group)):
                drawn = ([row for row in of if row.minibatch == index] for index in range(MINIBATCHES))
                made = [micro for part in drawn for micro in micro_batches(part, budget, packed=packed)]
                cases.append(Case(what, packed, budget, made, update))
            whole = micro_batches(rows, budget, packed=packed)
            cases.append(Case("old log-probs", packed, budget, whole, recompute))
    return sorted(cases, key=lambda case: (case.what, case.packed, -case.budget))


def table(cases: Sequence[Case], real: int) -> list[list[str]]:
    """A row a case; times faster than its kind's padded rows at the largest budget."""
    of_kind: dict[str, Case] = {}
    rows = []
    for case in cases:
        first = of_kind.setdefault(case.what, case)
        computed = sum(micro.ids_BT.size for micro in case.batches)
        told = (f"{computed / real:.2f}", f"{case.seconds:.2f}", f"{first.seconds / case.seconds:.2f}")
        layout = "packed" if case.packed else "padded"
        rows.append([case.what, layout, f"{case.budget:,}", str(len(case.batches)), *told])
    return rows


if __name__ == "__main__":
    sys.exit(run_command(main))
