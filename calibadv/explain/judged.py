"""c against a judge's word: are searches that c calls right right? (CalibAdv sec. 4.5, table 5)

As the paper sampled: searches with c > 0.5, 20 in each of five parts of the training. The judge is any
OpenAI-compatible endpoint, asked as `rewards/judge.py` asks it: 1 helpful, 0.5 partially, 0 not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibadv.explain.disagreement import Search
from calibadv.explain.truth import Rate, parts_of_training, rate_over_questions
from calibadv.rewards.judge import Endpoint, Judge
from calibadv.rewards.verdicts import step_prompt, step_verdict
from calibadv.types import Document

LIKELY = 0.5  # c above which a search counts as likely right
EACH, PARTS = 20, 5


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge said of the sampled searches of one part of the training."""

    first: int  # step
    last: int
    asked: int
    helpful: Rate | None  # share with verdict 1, of those with one
    partly: Rate | None  # with 0.5 at least
    gold: Rate | None  # of the same, the share that found a gold passage; None where none is known
    unreadable: int
    failed: int  # calls without a reply after all retries


def judged_of(
    searches: Sequence[Search],
    documents: Mapping[int, Mapping[str, Document]],
    endpoint: Endpoint,
    *,
    each: int = EACH,
) -> list[Judged]:
    """Asks about at most `each` searches of each part of the training, drawn by a seed. `documents`: by step and id.

    A part without a search of c > 0.5 is left out. The endpoint's failures are counted and never raised.
    """
    drawn = []
    for first, last, of_part in parts_of_training(searches, PARTS):
        likely = [search for search in of_part if search.c > LIKELY]
        if likely:
            drawn.append((first, last, random.Random(f"0 {first}").sample(likely, min(each, len(likely)))))
    prompts = {id(search): _prompt(search, documents[search.step]) for _, _, sample in drawn for search in sample}
    replies = asyncio.run(_asked(endpoint, list(prompts.values())))
    return [
        _judged(first, last, sample, [replies[prompts[id(search)]] for search in sample])
        for first, last, sample in drawn
    ]


async def _asked(endpoint: Endpoint, prompts: Sequence[str]) -> dict[str, str | None]:
    judge = Judge(endpoint, "such searches have no verdict")
    return {prompt: reply.text for prompt, reply in (await judge.ask(prompts)).items()}


def _prompt(search: Search, known: Mapping[str, Document]) -> str:
    turn = search.group.trajectories[search.rollout].turns[search.turn]
    found = [known[doc] for doc in turn.doc_ids if doc in known]
    return step_prompt(search.group.question, turn.query or "", found)


def _judged(first: int, last: int, sample: Sequence[Search], replies: Sequence[str | None]) -> Judged:
    verdicts = [None if reply is None else step_verdict(reply) for reply in replies]
    told = [(s.group.question.id, v) for s, v in zip(sample, verdicts, strict=True) if v is not None]
    gold = [(s.group.question.id, s.gold_share > 0) for s in sample if s.gold_share is not None]
    failed = sum(reply is None for reply in replies)
    return Judged(
        first,
        last,
        len(sample),
        rate_over_questions([(question, verdict == 1) for question, verdict in told]),
        rate_over_questions([(question, verdict > 0) for question, verdict in told]),
        rate_over_questions(gold),
        len(sample) - len(told) - failed,
        failed,
    )
