"""The order in which training meets its questions: a pure function of seed, epoch and question id."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
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
    the next epoch fills it up. No step asks a question twice, where there are as many as it asks: those of the new
    epoch that began the step go behind the step's part of it. An epoch is ordered when its first question is due. A
    resumed run needs nothing but its step.
    """
    if start < 0 or per_step < 1 or not questions:
        raise ValueError(
            f"step {start}, {per_step} questions a step, {len(questions)} questions: "
            "expected step >= 0, at least one question a step and at least one question"
        )
    epoch, asked = divmod(start * per_step, len(questions))
    # What an epoch moves is among its first `per_step`: from a later place on it is read without the one before.
    first, place = epoch, asked
    while first > 0 and place < per_step:
        first, place = first - 1, len(questions) - per_step
    ordered = chain.from_iterable(_epochs(questions, per_step, seed, first, order))
    left = islice(ordered, (epoch - first) * len(questions) + asked, None)
    return (list(islice(left, per_step)) for _ in count())


def _epochs(
    questions: Sequence[Question], per_step: int, seed: int, first: int, order: Order
) -> Iterator[list[Question]]:
    """The epochs from `first` on as steps read them; of `first` itself the beginning may be another."""
    before: list[Question] = []
    for epoch in count(first):
        ordered = order(questions, epoch, seed)
        begun = epoch * len(questions) % per_step  # questions of the epoch before in the step that ends it
        asked = {question.id for question in before[max(0, len(before) - begun) :]}
        part = list(islice((question for question in ordered if question.id not in asked), per_step - begun))
        if part != ordered[: len(part)]:
            taken = {question.id for question in part}
            ordered = part + [question for question in ordered if question.id not in taken]
        yield ordered
        before = ordered


def places(
    questions: Sequence[Question],
    per_step: int,
    seed: int,
    *,
    spares: int = 0,
    start: int = 0,
    order: Order = epoch_order,
) -> Iterator[list[tuple[Question, ...]]]:
    """The places of each of the `training_steps`: its question, and then up to `spares` that may be asked instead.

    Spares are what later steps ask at that place, as far apart in the order as so many can be; what its step asks
    anyway, or has as a spare elsewhere, is left out. First questions are the same with any number of spares.
    """
    apart = max(1, len(questions) // (per_step * (spares + 1)))
    ordered = lru_cache(maxsize=2)(lambda epoch: order(questions, epoch, seed))  # several steps read it

    def steps_from(step: int) -> Iterator[list[Question]]:
        return training_steps(questions, per_step, seed, start=step, order=lambda _, epoch, __: ordered(epoch))

    steps = [steps_from(start + ahead * apart) for ahead in range(spares + 1)]
    for asked, *later in zip(*steps, strict=True):
        taken = {question.id for question in asked}
        found = [[question] for question in asked]
        for row in later:
            for place, question in zip(found, row, strict=True):
                if question.id not in taken:
                    taken.add(question.id)
                    place.append(question)
        yield [tuple(place) for place in found]


def _digest(seed: int, epoch: int, question_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{epoch}\0{question_id}".encode(), digest_size=16).digest()
