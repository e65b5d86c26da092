"""The user's rewards of turns: of every rollout, with its documents; a failing function is never a score."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from calibadv.config import load_config
from calibadv.methods import make_method
from calibadv.rewards.outcome import RewardFailed
from calibadv.rewards.own_turns import OwnTurns, TurnsFn
from calibadv.rewards.turns import with_turn_rewards
from calibadv.types import Document, Group, Question, Trajectory
from calibadv.user_code import hand_in
from tests.build import QUESTION, group, trajectory
from tests.extend_page import example

DOCUMENTS = {"a": Document("a", "", "Ada wrote it."), "x": Document("x", "", "Nobody did.")}


def told() -> Group:
    """The right rollout found the answer; the other one half of the time, and then nothing."""
    return group(trajectory(1.0, [1, 1], [["a"]]), trajectory(0.0, [1, 1, 2], [["a", "x"], []]))


def the_pages() -> TurnsFn:
    """`turns` as docs/extend.md has it."""
    scope: dict[str, Any] = {}
    exec(example("Rewards of turns", "python"), scope)
    function: TurnsFn = scope["turns"]
    return function


def rows(function: TurnsFn, retries: int = 0) -> list[list[float]]:
    return [list(row) for row in asyncio.run(OwnTurns(function, retries, pause_s=0.0)(told(), DOCUMENTS)).rewards]


def test_the_page_s_function_scores_every_turn() -> None:
    assert rows(the_pages()) == [[1, 0], [0.5, 0, 0]]


def test_an_asynchronous_function_is_awaited_and_sees_its_question_and_documents() -> None:
    async def slow(question: Question, rollout: Trajectory, documents: Mapping[str, Document]) -> list[float]:
        await asyncio.sleep(0)
        assert question is QUESTION
        return [float(len(documents))] * len(rollout.turns)

    assert rows(slow) == [[2, 2], [2, 2, 2]]


def test_one_that_fails_now_and_then_is_tried_again() -> None:
    calls: list[int] = []

    def flaky(_q: Question, rollout: Trajectory, _d: Mapping[str, Document]) -> list[float]:
        calls.append(1)
        if len(calls) == 1:
            raise TimeoutError("away")
        return [1.0] * len(rollout.turns)

    assert rows(flaky, retries=1) == [[1, 1], [1, 1, 1]]
    calls.clear()
    with pytest.raises(RewardFailed, match=r"no rewards of turns for question 'test/q' \(TimeoutError: away"):
        rows(flaky)


@pytest.mark.parametrize("wrong", [[1.0], [1.0, float("nan")], None, ["a", "b"], 1.0])
def test_what_is_no_number_a_turn_is_a_failure_and_not_a_score(wrong: Any) -> None:
    with pytest.raises(RewardFailed, match="no rewards of turns"):
        rows(lambda _q, _t, _d: wrong)


def configured(function: TurnsFn, name: str, **params: Any) -> Group:
    """The group as the configured method's scorer leaves it."""
    config = load_config(None, {"reward.turns": hand_in(function), "method.name": name, "method.params": params})
    method = config.run_method()
    assert method.score_turns is not None
    assert method.gold is None
    return with_turn_rewards(told(), asyncio.run(method.score_turns()(told(), DOCUMENTS)).rewards)


def test_calibadv_takes_them_for_the_scores_of_its_searches() -> None:
    scored = configured(the_pages(), "calibadv", soft_pen="turns")
    method = make_method("calibadv", {"soft_pen": "turns", "adv_reb": False, "baseline": "dr_grpo"})
    assert [row.tolist() for row in method.scores(scored)] == [[1], [0.5, 0]]
    right, wrong = method.advantages(scored)
    assert right.tolist() == [0.5, 0.5]
    assert wrong.tolist() == [-0.25, -0.5, -0.5, -0.5]


def test_calibadv_never_turns_a_sign_by_them() -> None:
    scored = with_turn_rewards(told(), [[7.0, 0.0], [3.0, -2.0, 0.0]])
    method = make_method("calibadv", {"soft_pen": "turns", "adv_reb": False, "baseline": "dr_grpo"})
    assert method.advantages(scored)[1].tolist() == [0, -0.5, -0.5, -0.5]


@pytest.mark.parametrize("name", ["mt_grpo", "stepsearch", "criticsearch"])
def test_they_take_the_place_of_a_method_s_own(name: str) -> None:
    scored = configured(the_pages(), name)
    assert [[turn.reward for turn in t.turns] for t in scored.trajectories] == [[1, 0], [0.5, 0, 0]]
    assert any(row_N.any() for row_N in make_method(name, {}).advantages(scored))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reward.turns": "mine.py:turns", "method.name": "grpo"}, "'grpo' reads no rewards of turns: leave it empty"),
        ({"reward.turns": "mine.py:turns"}, "'calibadv' reads no rewards of turns: .*soft_pen 'turns'"),
        ({"method.params.soft_pen": "turns"}, "soft_pen 'turns' reads rewards .* set reward.turns"),
        ({"method.name": "mt_grpo", "reward.turns": "nowhere.py:turns"}, "reward.turns = .* there is no file"),
        ({"method.name": "mt_grpo", "reward.turns": "math:pi"}, "reward.turns = 'math:pi' is no function"),
        ({"method.name": "mt_grpo", "reward.turns": "f1"}, "reward.turns = 'f1': expected package.module:name"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_config(None, given)
