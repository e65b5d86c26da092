"""The order in which training meets its questions: a pure function of seed, epoch and question id."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from calibadv.types import Question


def epoch_order(questions: Sequence[Question], epoch: int, seed: int) -> list[Question]:
    """The questions of one epoch, sorted by a hash of (seed, epoch, id): a shuffle that every process repeats.

    It depends neither on the order of `questions` nor, for the others' order, on which questions there are.
    """
    return sorted(questions, key=lambda question: (_digest(seed, epoch, question.id), question.id))


def questions_of_step(questions: Sequence[Question], step: int, per_step: int, seed: int) -> list[Question]:
    """The `per_step` questions of `step` (from 0).

    Steps read the epochs one after the other without gaps: what is left of an epoch begins the step that ends it, and
    the next epoch fills it up. A resumed run needs nothing but its step.
    """
    if step < 0 or per_step < 1 or not questions:
        raise ValueError(
            f"step {step}, {per_step} questions a step, {len(questions)} questions: "
            "expected step >= 0, at least one question a step and at least one question"
        )
    picked: list[Question] = []
    cursor = step * per_step
    while len(picked) < per_step:
        epoch, offset = divmod(cursor + len(picked), len(questions))
        picked += epoch_order(questions, epoch, seed)[offset : offset + per_step - len(picked)]
    return picked


def _digest(seed: int, epoch: int, question_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{epoch}\0{question_id}".encode(), digest_size=16).digest()
