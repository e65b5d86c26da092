"""The order of training: the same everywhere, another each epoch, without gaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.data.order import epoch_order, questions_of_step
from calibadv.types import Question

# Written down once: a change here changes what every resumed run reads next.
KNOWN = ["set/2", "set/0", "set/1", "set/3"]
QUESTIONS = [Question(f"set/{i}", "who?", ("a",)) for i in range(10)]


def ids(questions: list[Question]) -> list[str]:
    return [question.id for question in questions]


def test_the_order_is_known() -> None:
    assert ids(epoch_order(QUESTIONS[:4], epoch=0, seed=0)) == KNOWN


def test_the_order_of_the_file_does_not_matter() -> None:
    assert epoch_order(QUESTIONS[::-1], 3, 1) == epoch_order(QUESTIONS, 3, 1)


def test_epochs_and_seeds_differ() -> None:
    orders = [ids(epoch_order(QUESTIONS, epoch, seed)) for epoch in (0, 1) for seed in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


@given(st.integers(1, 25), st.integers(0, 12), st.integers(0, 3))
def test_steps_read_the_epochs_without_gaps(per_step: int, steps: int, seed: int) -> None:
    read = [q for step in range(steps) for q in questions_of_step(QUESTIONS, step, per_step, seed)]
    epochs = [q for epoch in range(len(read) // 10 + 1) for q in epoch_order(QUESTIONS, epoch, seed)]
    assert read == epochs[: len(read)]


@pytest.mark.parametrize(("step", "per_step", "count"), [(-1, 1, 3), (0, 0, 3), (0, 1, 0)])
def test_impossible_steps_are_refused(step: int, per_step: int, count: int) -> None:
    with pytest.raises(ValueError, match="expected step >= 0"):
        questions_of_step(QUESTIONS[:count], step, per_step, 0)
