"""Anchor states: which turns answer to the same thing, and what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.advantages.anchor import anchor_states, anchors, step_returns
from calibadv.types import Trajectory, TurnKind
from tests.build import group, trajectory, turn

ANSWER = turn(1, kind=TurnKind.ANSWER)
RETRIED = replace(turn(1, kind=TurnKind.VOID), observation_ids=np.array([9, 9]))


def reading(*observations: Sequence[int], reward: float = 0.0) -> Trajectory:
    """A search for each of the observations, then an answer."""
    searches = (replace(turn(1), observation_ids=np.array(ids, dtype=np.int64)) for ids in observations)
    return replace(trajectory(reward, [1]), turns=(*searches, ANSWER))


def test_a_turn_answers_to_the_question_then_to_the_last_information() -> None:
    assert anchors(group(reading([1, 2], [3]))) == [[(), (1, 2), (3,)]]


def test_a_void_turn_leaves_the_anchor_as_it_was() -> None:
    search = reading([1, 2]).turns[0]
    retried = replace(trajectory(0.0, [1]), turns=(RETRIED, search, RETRIED, ANSWER))
    assert anchors(group(retried)) == [[(), (), (1, 2), (1, 2)]]


def test_what_another_tool_gave_is_an_anchor_too() -> None:
    called = replace(turn(1, kind=TurnKind.CALL), observation_ids=np.array([7]))
    assert anchors(group(replace(trajectory(0.0, [1]), turns=(called, ANSWER)))) == [[(), (7,)]]


def test_exact_states_are_equal_ids() -> None:
    first, second = anchor_states(group(reading([1, 2, 3], [4]), reading([1, 2, 3], [5])), 1.0)
    assert first[:2] == second[:2]
    assert first[2] != second[2]
    assert len({*first, *second}) == 4


@pytest.mark.parametrize(("changed", "same"), [(1, True), (2, True), (3, False)])
def test_similar_information_is_one_state_from_nine_tenths_on(changed: int, same: bool) -> None:
    # 20 ids of which all but `changed` match: ratio 0.95, 0.9, 0.85.
    text = list(range(20))
    (_, one), (_, other) = anchor_states(
        group(reading(text), reading([*text[changed:], *range(90, 90 + changed)])), 0.9
    )
    assert (one == other) is same


def test_the_same_ids_in_another_order_are_not_similar() -> None:
    (_, one), (_, other) = anchor_states(group(reading(range(20)), reading(range(19, -1, -1))), 0.9)
    assert one != other


def test_an_anchor_joins_a_representative_not_a_member() -> None:
    first = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    member = [*first[:8], 20, 21]  # 8 of 10 ids of the first
    # Each shares 8 ids with the member, 6 with the first and 6 with the other.
    near_member = [[30, 31, *member[2:]], [*member[:6], 40, 41, *member[8:]]]
    states = anchor_states(group(*map(reading, [first, member, *near_member])), 0.8)
    one, joined, *others = [row[1] for row in states]
    assert one == joined
    assert len({one, *others}) == 3


def test_the_shortest_anchor_is_the_representative() -> None:
    long = list(range(12))
    middle, short = long[1:], long[2:]  # 2 * 10 of 21 ids, 2 * 11 of 23; the two ends 2 * 10 of 22
    (_, one), (_, joined), (_, other) = anchor_states(group(*map(reading, [long, middle, short])), 0.92)
    assert (one == joined, joined == other) == (False, True)


def test_frequent_ids_of_long_information_count() -> None:
    text = [i % 10 for i in range(300)]
    (_, one), (_, other) = anchor_states(group(reading(text), reading([77, *text[1:]])), 0.9)
    assert one == other


@pytest.mark.parametrize("similarity", [0.9, 1.0])
def test_the_question_is_a_state_of_its_own(similarity: float) -> None:
    ((question, *later),) = anchor_states(group(reading([4], [4])), similarity)
    assert later == [later[0]] * 2
    assert question not in later


def test_returns_by_hand() -> None:
    retried = replace(trajectory(1.0, [1]), turns=(turn(), RETRIED, ANSWER))
    (row,) = step_returns(group(retried), gamma=0.5, invalid_penalty=0.1)
    np.testing.assert_allclose(row, [0.5 * 0.5, 0.5 - 0.1, 1], atol=1e-6)


def test_a_rollout_that_ends_void_pays_for_it() -> None:
    (row,) = step_returns(group(replace(trajectory(0.0, [1]), turns=(turn(), RETRIED))), 0.5, 0.1)
    np.testing.assert_allclose(row, [0, -0.1], atol=1e-6)


texts = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@given(st.lists(st.lists(texts, max_size=3), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_states_do_not_depend_on_the_order_of_the_rollouts(observations: list[list[list[int]]], random) -> None:
    order = list(range(len(observations)))
    random.shuffle(order)
    rollouts = [reading(*row) for row in observations]
    states = anchor_states(group(*rollouts), 0.6)
    assert anchor_states(group(*(rollouts[i] for i in order)), 0.6) == [states[i] for i in order]
