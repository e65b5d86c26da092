"""One question rolled out and learned from, in this process, with the recipe's own model, method and dialogue."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from calibadv.config import Config
from calibadv.doctor.data import first_documents, first_questions
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.hardware import PROCESS_BYTES, available_bytes
from calibadv.doctor.subject import Subject
from calibadv.memory.items import gib
from calibadv.types import Document, Group, Question

SMALL = 300_000_000  # parameters: below it a CPU takes a minute at most
_TURN_TOKENS, _TURNS = 24, 1
_SAME = 1e-2  # nats: the engine here and the learner both compute in fp32 or better


def rollout(subject: Subject) -> Iterator[Finding]:
    """The rollouts of a question and one update with them, unless the model is too large for a mere look."""
    if (untried := why_not_tried(subject, updates=True)) is not None:
        yield untried
        return
    from calibadv.rllib.trial import one_update

    group = roll(subject)
    yield rolled(group)
    yield learned(one_update(subject.config, subject.model.path, [rewarded(group)]))


def why_not_tried(subject: Subject, name: str = "rollout", *, updates: bool) -> Finding | None:
    """Why the model is not tried here: without weights, too large for a mere look, or for this machine's memory."""
    model = subject.model
    sizes = subject.sizes
    if not model.whole:
        return warned(
            name, "the weights are not here yet: only the tokenizer was looked at", "run it again once they are"
        )
    if sizes.parameters >= SMALL and not subject.deep:
        said = f"{sizes.parameters / 1e6:,.0f} M parameters: only the tokenizer was looked at"
        return passed(name, f"{said}; --deep rolls out and updates with it")
    # fp32, as it is loaded
    held = 3 * sizes.state_bytes / 4 + sizes.learner_bytes if updates else 8 * sizes.parameters
    wanted, free = held + PROCESS_BYTES, available_bytes()
    if wanted > free:
        said = f"a trial in this process takes about {gib(wanted)}, {gib(free)} are free"
        return warned(name, said, "run the doctor on a larger machine")
    return None


def roll(subject: Subject) -> Group:
    """One group of the first training question, a few tokens a turn; a search finds the corpus's first passages."""
    import torch

    from calibadv.cluster.factories import make_roller
    from calibadv.rollout.torch_engine import TorchEngine

    config = shortened(subject.config)
    found = tuple(any_documents(subject)[: config.search.top_k])
    (question,) = first_questions(subject.files["train"], 1)

    async def search(query: str) -> tuple[Document, ...]:
        return found if query else ()

    folder = str(subject.model.path)
    rollout = config.rollout
    engine = TorchEngine.from_folder(
        folder, max_batch=rollout.samples, compute_dtype=torch.float32, tempered_logprobs=rollout.tempered
    )
    try:
        roller = make_roller(config, config.run_method(), folder, search)
        group = asyncio.run(roller.train(_with_gold(question, found), engine, step=0, version=0)).group
    finally:
        engine.close()
    assert group is not None, "this search never fails"
    return group


def shortened(config: Config) -> Config:
    """The recipe with rollouts of a turn or two and a few tokens each."""
    rollout = config.rollout
    less = {
        "max_turns": min(rollout.max_turns, _TURNS),
        "max_turn_tokens": min(rollout.max_turn_tokens, _TURN_TOKENS),
    }
    return config.model_copy(update={"rollout": rollout.model_copy(update=less)})


def rewarded(group: Group) -> Group:
    """The group with rewards 1, 0, 1, 0, … in place of its own."""
    made_up = tuple(
        replace(trajectory, answer_reward=reward, format_reward=1.0, reward=reward)
        for trajectory, reward in zip(group.trajectories, np.arange(len(group.trajectories)) % 2 == 0, strict=True)
        for reward in (float(reward),)
    )
    return replace(group, trajectories=made_up)


def rolled(group: Group) -> Finding:
    """Whether every trajectory has sampled tokens with finite log-probs."""
    tokens = sum(trajectory.num_actions for trajectory in group.trajectories)
    logprobs = np.concatenate([turn.logprobs for t in group.trajectories for turn in t.turns])
    if not tokens or not np.isfinite(logprobs).all():
        said = f"{tokens} tokens sampled, log-probs {logprobs[~np.isfinite(logprobs)][:3].tolist()}"
        return failed("rollout", said, "look at the model's weights: they may be damaged, or of another architecture")
    searches = sum(turn.query is not None for t in group.trajectories for turn in t.turns)
    said = f"{len(group.trajectories)} rollouts of one question: {tokens} tokens, {searches} searches"
    return passed("rollout", said)


def learned(metrics: dict[str, Any]) -> Finding:
    """Whether the update was made, and the learner's log-probs are the engine's."""
    norm, difference = metrics["learner/grad_norm"], metrics["sync/logprob_diff_mean"]
    if metrics["learner/skipped_updates"] or not math.isfinite(norm):
        return failed("update", "loss or gradient is not finite", "look at the model's weights and at learner.dtype")
    if difference > _SAME:
        said = f"the learner's log-probs are {difference:.2g} nats off the engine's"
        return failed("update", said, "the model has a step that the chunked head or the engine lacks: report it")
    if norm == 0:
        return warned("update", "the gradient is 0", "look at the method's parameters: nothing would be learned")
    return passed("update", f"gradient norm {norm:.3g}, log-probs of engine and learner {difference:.1g} nats apart")


def any_documents(subject: Subject) -> list[Document]:
    """What a search of a trial finds: the corpus's first passages."""
    if subject.config.search.elsewhere:  # its corpus need not be here
        return [Document("doctor", "Oslo", "Oslo is the capital of Norway.")]
    return first_documents(subject.files["corpus"], subject.config.search.top_k)


def _with_gold(question: Question, found: tuple[Document, ...]) -> Question:
    """The question with gold parts, of which some methods' rewards read the text."""
    return replace(
        question,
        sub_queries=question.sub_queries or (question.text,),
        gold_doc_ids=question.gold_doc_ids or (found[0].id,),
        gold_titles=(found[0].title,),
        gold_passages=(found[0].text,),
    )
