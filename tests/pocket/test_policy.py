"""The shipped pocket policy: it opens, writes the format, answers poorly but learnably, and can be made again.

Two warm starts are *equal* if the losses of their steps agree within `LOSS_TOLERANCE` nats: same demonstrations, same
initial weights, same updates, up to the rounding of bfloat16 on another processor or number of threads. On one machine
with one number of threads they agree exactly. The first steps are run again here; the whole recipe takes minutes:
`python workflows/warm_start.py pocket --out FOLDER`. What the shipped weights are good for is checked on themselves.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from calibadv.data.corpus import load_corpus
from calibadv.data.questions import load_questions
from calibadv.pocket import policy_path, write_pocket_world
from calibadv.pocket.chains import ChainSampler
from calibadv.pocket.demonstrations import SyntheticSearch, reading_exercise
from calibadv.pocket.supervised import WarmStart, build_policy, encode_dialogue, rows, train, weighted_loss
from calibadv.pocket.tokenizer import POCKET_TEMPLATE, build_tokenizer
from calibadv.pocket.world import Half, build_world
from calibadv.rollout.agent import Agent, Limits
from calibadv.rollout.dialogues.tags import TagsDialogue
from calibadv.rollout.torch_engine import TorchEngine
from calibadv.types import Document, Question, Trajectory

LOSS_TOLERANCE = 0.02
STEPS_AGAIN = 10
TOKENIZER = build_tokenizer()


def test_the_recipe_still_makes_an_equal_policy() -> None:
    record = json.loads((policy_path() / "warm_start.json").read_text("utf-8"))
    policy = build_policy(TOKENIZER, seed=0)
    losses = train(policy, TagsDialogue(TOKENIZER, template=POCKET_TEMPLATE), WarmStart(), steps=STEPS_AGAIN)
    assert record["seed"] == WarmStart().seed
    assert len(record["losses"]) == WarmStart().steps
    assert losses == pytest.approx(record["losses"][:STEPS_AGAIN], abs=LOSS_TOLERANCE)


def test_the_folder_is_small_and_fp32() -> None:
    assert sum(path.stat().st_size for path in policy_path().iterdir()) < 15e6
    with safe_open(policy_path() / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float32}  # noqa: SIM118
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118


def test_it_opens_as_any_model_does() -> None:
    policy = AutoModelForCausalLM.from_pretrained(policy_path())
    tokenizer = AutoTokenizer.from_pretrained(policy_path())
    assert isinstance(policy, Qwen2ForCausalLM)
    assert 1e6 < policy.num_parameters() < 5e6
    assert policy.config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert policy.config.max_position_embeddings >= 2048
    assert policy.config.head_dim % 16 == 0
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()


def test_it_predicts_unseen_demonstrations_well() -> None:
    """Held out by construction: every world of another seed is new."""
    policy = AutoModelForCausalLM.from_pretrained(policy_path(), dtype=torch.float32).eval()
    source = rows(TagsDialogue(TOKENIZER, template=POCKET_TEMPLATE), WarmStart(seed=99, steps=1, rows=1))
    held_out = [next(source) for _ in range(400)][-100:]  # the last ones show three documents
    right, total = 0, 0
    for row in held_out:
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            guesses = policy(input_ids=ids).logits[0, :-1].argmax(-1)
        trained = torch.tensor(row.weights[1:]) == 1.0
        right += int((guesses == ids[0, 1:])[trained].sum())
        total += int(trained.sum())
    assert right / total > 0.85
    assert weighted_loss(policy, torch.tensor([held_out[0].ids]), torch.tensor([held_out[0].weights])) < 2.0


def test_it_reads_the_document_that_it_asked_for() -> None:
    """First word of every fact of the document found, among namesakes' documents, in a world it never saw."""
    policy = AutoModelForCausalLM.from_pretrained(policy_path(), dtype=torch.float32).eval()
    rng, dialogue = random.Random(7), TagsDialogue(TOKENIZER, template=POCKET_TEMPLATE)
    world = build_world(777)
    searcher, sampler = SyntheticSearch(world, rng), ChainSampler(world, Half.TRAIN, rng)
    states = TOKENIZER.encode(" is")[0]
    right, total = 0, 0
    for _ in range(32):
        row = encode_dialogue(dialogue, "which?", reading_exercise(searcher, rng, sampler.draw()), context_weight=0.0)
        with torch.no_grad():
            guesses = policy(input_ids=torch.tensor([row.ids])).logits[0].argmax(-1).tolist()
        written = enumerate(zip(row.ids, row.weights, strict=True))
        facts = [i for i, token_and_weight in written if token_and_weight == (states, 1.0)]
        right += sum(guesses[i] == row.ids[i + 1] for i in facts)
        total += len(facts)
    assert total > 60
    assert right / total > 0.7  # picking any of the three documents would give a third


@dataclass(frozen=True)
class TitleSearch:
    """A fast stand-in for the real search: documents by the number of title words that the query names."""

    documents: list[Document]

    async def __call__(self, query: str) -> tuple[Document, ...]:
        words = set(query.split())
        ranked = sorted(self.documents, key=lambda d: -len(words.intersection(d.title.split())))
        return tuple(ranked[:3])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Question], TitleSearch]:
    paths = write_pocket_world(tmp_path_factory.mktemp("pocket"))
    return load_questions(paths.test, name="pocket"), TitleSearch(load_corpus(paths.corpus))


def roll(world: tuple[list[Question], TitleSearch], count: int, prefill: str, temperature: float) -> list[Trajectory]:
    questions, search = world
    engine = TorchEngine.from_folder(Path(policy_path()), compute_dtype=torch.float32)  # means, not bits: half the time
    dialogue = TagsDialogue(TOKENIZER, prefill, POCKET_TEMPLATE)
    agent = Agent(dialogue, engine, search, Limits(max_turn_tokens=64))

    async def all_of_them() -> list[Trajectory]:
        return await asyncio.gather(
            *(agent.roll(q, temperature=temperature, seed_of_turn=lambda t, i=i: 100 * i + t) for i, q in
              enumerate(questions[:count]))
        )  # fmt: skip

    try:
        return asyncio.run(all_of_them())
    finally:
        engine.close()


def test_greedy_it_writes_the_format_and_answers_poorly(world: tuple[list[Question], TitleSearch]) -> None:
    trajectories = roll(world, 200, prefill="", temperature=0.0)
    assert fmean(t.format_reward for t in trajectories) >= 0.9
    assert 0.12 <= fmean(t.reward for t in trajectories) <= 0.45


def test_sampled_with_a_prefilled_think_it_is_right_often_enough_to_learn(
    world: tuple[list[Question], TitleSearch],
) -> None:
    trajectories = roll(world, 200, prefill="<think>", temperature=1.0)
    assert fmean(t.format_reward for t in trajectories) >= 0.85
    assert 0.15 <= fmean(t.reward for t in trajectories) <= 0.6
    assert fmean(t.num_tokens for t in trajectories) < 300
