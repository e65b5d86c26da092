"""The order of training: the same everywhere, another each epoch, without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.data.order import epoch_order, places, training_steps
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


def read(per_step: int, steps: int, seed: int, start: int = 0, *, of: int = len(QUESTIONS)) -> list[list[str]]:
    return [ids(step) for step in islice(training_steps(QUESTIONS[:of], per_step, seed, start=start), steps)]


@given(st.integers(1, 10), st.integers(1, 25), st.integers(1, 12), st.integers(0, 3), st.integers(0, 12))
def test_each_epoch_asks_each_question_once_from_wherever_a_run_goes_on(
    of: int, per_step: int, steps: int, seed: int, start: int
) -> None:
    whole = read(per_step, start + steps, seed, of=of)
    assert read(per_step, steps, seed, start, of=of) == whole[start:]
    asked = [id_ for step in whole for id_ in step]
    epochs = [asked[first : first + of] for first in range(0, len(asked) - of + 1, of)]
    assert all(sorted(epoch) == sorted(ids(QUESTIONS[:of])) for epoch in epochs)


@given(st.integers(1, 10), st.data(), st.integers(0, 3))
def test_no_step_asks_a_question_twice(of: int, data: st.DataObject, seed: int) -> None:
    per_step = data.draw(st.integers(1, of))
    assert all(len(set(step)) == per_step for step in read(per_step, 30, seed, of=of))


def test_what_a_step_has_asked_already_goes_behind_its_part_of_the_new_epoch() -> None:
    orders = ["abcde", "dbeca", "aebdc"]

    def order(_: Sequence[Question], epoch: int, __: int) -> list[Question]:
        return [Question(id_, "who?", ("a",)) for id_ in orders[epoch]]

    steps = islice(training_steps(QUESTIONS[:5], 3, 0, order=order), 5)
    # The second step has asked d and e of the first epoch: of the second b, and then d, e, c, a. The fourth has asked
    # a: of the third e and b, and then a, d, c.
    assert ["".join(ids(step)) for step in steps] == ["abc", "deb", "dec", "aeb", "adc"]


@given(st.integers(1, 10), st.integers(0, 20))
def test_up_to_the_first_question_asked_twice_the_epochs_stand_in_their_own_order(per_step: int, seed: int) -> None:
    epochs = [id_ for epoch in range(10) for id_ in ids(epoch_order(QUESTIONS, epoch, seed))]
    plain = [epochs[first : first + per_step] for first in range(0, len(epochs) - per_step + 1, per_step)]
    once = next((step for step, asked in enumerate(plain) if len(set(asked)) < per_step), len(plain))
    assert read(per_step, once, seed) == plain[:once]


@pytest.mark.parametrize(
    ("start", "seen"),
    [
        (3, [[0, 1], [0, 1], [0, 1, 2], [0, 1, 2]]),  # the questions 12 to 15, 16 to 19, 20 to 23, …
        (4, [[1], [1, 2], [1, 2], [1, 2, 3]]),  # from 16 on: the first four of its epoch alone hang on the one before
    ],
)
def test_an_epoch_is_ordered_once_when_its_first_question_is_due(start: int, seen: list[list[int]]) -> None:
    ordered: list[int] = []

    def order(questions: Sequence[Question], epoch: int, seed: int) -> list[Question]:
        ordered.append(epoch)
        return epoch_order(questions, epoch, seed)

    steps = training_steps(QUESTIONS, 4, 0, start=start, order=order)
    assert ordered == []
    for expected in seen:
        next(steps)
        assert ordered == expected


@pytest.mark.parametrize(("step", "per_step", "count"), [(-1, 1, 3), (0, 0, 3), (0, 1, 0)])
def test_impossible_steps_are_refused(step: int, per_step: int, count: int) -> None:
    with pytest.raises(ValueError, match="expected step >= 0"):
        training_steps(QUESTIONS[:count], per_step, 0, start=step)


@given(st.integers(1, 25), st.integers(0, 4), st.integers(0, 12), st.integers(0, 3))
def test_a_place_has_its_question_first_and_spares_that_nobody_of_the_step_has(
    per_step: int, spares: int, start: int, seed: int
) -> None:
    steps = list(islice(places(QUESTIONS, per_step, seed, spares=spares, start=start), 3))
    alone = list(islice(training_steps(QUESTIONS, per_step, seed, start=start), 3))
    assert [[place[0] for place in step] for step in steps] == alone
    for step, asked in zip(steps, alone, strict=True):
        others = ids([question for place in step for question in place[1:]])
        assert len(others) == len(set(others))
        assert not set(others) & set(ids(asked))
        assert all(len(place) <= 1 + spares for place in step)
    # A step's places do not depend on where a run goes on.
    assert steps[2] == next(places(QUESTIONS, per_step, seed, spares=spares, start=start + 2))


def test_spares_are_asked_far_from_where_they_are_first_questions() -> None:
    # Ten questions in steps of two, with a spare each: half an epoch of five steps is two steps ahead.
    steps = list(islice(places(QUESTIONS, 2, 0, spares=1), 3))
    assert [[place[1] for place in step] for step in steps[:1]] == [[place[0] for place in steps[2]]]
