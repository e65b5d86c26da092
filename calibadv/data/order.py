"""The order in which training meets its questions: a pure function of seed, epoch and question id."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, islice

from calibadv.types import Question

Order = Callable[[Sequence[Question], int, int], list[Question]]
"""(questions, epoch, seed) -> the questions of that epoch, in order."""


def epoch_order(questions: Sequence[Question], epoch: int, seed: int) -> list[Question]:
    """The questions of one epoch, sorted by a hash of (seed, epoch, id): a shuffle that every process repeats.

    It depends neither on the order of `questions` nor, for the others' order, on which questions there are.
    """
    return sorted(questions, key=lambda question: (_digest(seed, epoch, question.id), question.id))


def training_steps(
    questions: Sequence[Question], per_step: int, seed: int, *, start: int = 0, order: Order = epoch_order
) -> Iterator[list[Question]]:
    """The `per_step` questions of each step from `start` (from 0) on, without end.

    Steps read the epochs one after the other without gaps: what is left of an epoch begins the step that ends it, and
    the next epoch fills it up. An epoch is ordered when its first question is due. A resumed run needs nothing but its
    step.
    """
    if start < 0 or per_step < 1 or not questions:
        raise ValueError(
            f"step {start}, {per_step} questions a step, {len(questions)} questions: "
            "expected step >= 0, at least one question a step and at least one question"
        )
    epoch, asked = divmod(start * per_step, len(questions))
    ordered = chain.from_iterable(order(questions, number, seed) for number in count(epoch))
    left = islice(ordered, asked, None)
    return (list(islice(left, per_step)) for _ in count())


def _digest(seed: int, epoch: int, question_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{epoch}\0{question_id}".encode(), digest_size=16).digest()
