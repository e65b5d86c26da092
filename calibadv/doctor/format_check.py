"""Whether the policy writes the format: real test questions, answered greedily within the recipe's own limits.

A rollout that is not well-formed has no reward, so that a policy without the format learns nothing. What a search finds
is the corpus's first passages: right answers are not looked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

from calibadv.doctor.data import first_questions
from calibadv.doctor.finding import Finding, passed, warned
from calibadv.doctor.rollout import any_documents, why_not_tried
from calibadv.doctor.subject import Subject
from calibadv.refusals import short_repr
from calibadv.rollout.group import RolledGroup
from calibadv.training.readiness import teach
from calibadv.training.readiness import well_formed as count
from calibadv.types import Document, Group

ASKED = 16  # test questions
PATIENCE_S = 1200.0


def well_formed(subject: Subject, patience_s: float = PATIENCE_S) -> Iterator[Finding]:
    """The share of well-formed rollouts, unless the model is too large for a mere look."""
    if (untried := why_not_tried(subject, "format", updates=False)) is not None:
        yield untried
        return
    try:
        yield judged(subject, answered(subject, patience_s))
    except TimeoutError:
        said = f"not one look is done after {patience_s / 60:.0f} minutes on this CPU"
        yield warned("format", said, "let the run tell: its first evaluation stops it where the format is not written")


def answered(subject: Subject, patience_s: float) -> list[Group]:
    """Greedy rollouts of the first test questions, as an evaluation makes them, with the torch engine."""
    import torch

    from calibadv.cluster.factories import make_roller
    from calibadv.rollout.torch_engine import TorchEngine

    config, folder = subject.config, str(subject.model.path)
    found = tuple(any_documents(subject)[: config.search.top_k])

    async def search(query: str) -> tuple[Document, ...]:
        return found if query else ()

    engine = TorchEngine.from_folder(folder, max_batch=ASKED, compute_dtype=torch.float32)
    try:
        roller = make_roller(config, config.run_method(), folder, search)
        questions = first_questions(subject.files["test"], ASKED)
        asked = (roller.evaluate(each, engine, step=0, version=0) for each in questions)
        rolled = asyncio.run(_all(asked, patience_s))
    finally:
        engine.close()
    return [each.group for each in rolled if each.group is not None]


async def _all(rollouts: Iterable[Coroutine[Any, Any, RolledGroup]], patience_s: float) -> list[RolledGroup]:
    async with asyncio.timeout(patience_s):
        return await asyncio.gather(*rollouts)


def judged(subject: Subject, groups: list[Group]) -> Finding:
    """How many are well-formed, against what a run's first evaluation asks for."""
    good, settings = count(groups), subject.config.sentinel
    said = f"{good} of {len(groups)} rollouts of test questions are well-formed ({good / len(groups):.0%})"
    if good >= settings.format_floor * len(groups):
        return passed("format", said)
    written = next(t.turns[0].text for group in groups for t in group.trajectories if not t.format_reward)
    remedy = teach(
        subject.given,
        model=subject.config.model.path,
        questions=subject.files["train"],
        corpus=subject.files["corpus"],
        out=subject.config.run.folder / f"{subject.config.run_name}-warm",
    )
    return warned("format", f"{said}, and nothing else has a reward; one began with {short_repr(written)}", remedy)
