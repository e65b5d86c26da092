"""The outcome reward: ours by hand, the user's with its parts, and a failing one that is never a score."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace

import pytest

from calibadv.config import load_config
from calibadv.rewards.outcome import OUTCOMES, Outcome, OutcomeFn, RewardFailed, make_outcome
from calibadv.rewards.overlong import Overlong
from calibadv.types import Question, Trajectory
from tests.build import trajectory

QUESTION = Question("q", "who?", ("Ada Lovelace",))
# F1 of "countess Ada Lovelace" and "Ada Lovelace": precision 2/3, recall 1, so 0.8.
RIGHT = replace(trajectory(0.8, [2], format_reward=1.0), answer="countess Ada Lovelace", answer_reward=0.8)
UNFORMED = replace(RIGHT, format_reward=0.0)


def scored(function: OutcomeFn, rollout: Trajectory = RIGHT, retries: int = 0) -> Trajectory:
    return asyncio.run(Outcome(function, retries, pause_s=0.0)(QUESTION, rollout))


@pytest.mark.parametrize(
    ("name", "well_formed", "unformed"),
    [("f1", 0.8, 0.0), ("f1_ungated", 0.8, 0.8), ("em", 0.0, 0.0), ("cover_em", 1.0, 0.0), ("format_bonus", 0.84, 0.0)],
)
def test_ours_by_hand(name: str, well_formed: float, unformed: float) -> None:
    assert scored(OUTCOMES[name]).reward == pytest.approx(well_formed)  # format_bonus: 0.8 * 0.8 + 0.2
    assert scored(OUTCOMES[name], UNFORMED).reward == pytest.approx(unformed)


def test_an_exact_answer_is_one_for_em_unless_it_is_not_well_formed() -> None:
    exact = replace(RIGHT, answer="ada lovelace!")
    assert scored(OUTCOMES["em"], exact).reward == 1.0
    assert scored(OUTCOMES["em"], replace(exact, format_reward=0.0)).reward == 0.0


def test_the_default_is_the_agents_own_score() -> None:
    assert asyncio.run(make_outcome("f1")(QUESTION, RIGHT)) == RIGHT


def test_parts_add_up_and_are_kept() -> None:
    given = scored(lambda _, t: {"answer": t.answer_reward, "brevity": -0.25})
    assert given.reward == pytest.approx(0.55)
    assert given.reward_parts == {"answer": 0.8, "brevity": -0.25}
    assert given.answer_reward == 0.8


def test_an_asynchronous_function_is_awaited() -> None:
    async def slow(_: Question, rollout: Trajectory) -> float:
        await asyncio.sleep(0)
        return rollout.answer_reward / 2

    assert scored(slow).reward == 0.4


def test_one_that_fails_now_and_then_is_tried_again() -> None:
    calls: list[int] = []

    def flaky(_: Question, __: Trajectory) -> float:
        calls.append(1)
        if len(calls) < 3:
            raise TimeoutError("the judge is away")
        return 1.0

    assert scored(flaky, retries=2).reward == 1.0
    calls.clear()
    with pytest.raises(
        RewardFailed, match=r"no reward for a rollout of question 'q' \(TimeoutError: the judge is away"
    ):
        scored(flaky, retries=1)


def none_left(_: Question, __: Trajectory) -> float:
    return next(score for score in (1.0,) if score > 1)


def cancelled(_: Question, __: Trajectory) -> float:
    judge: Future[float] = Future()
    judge.cancel()
    return judge.result()


def leaves(_: Question, __: Trajectory) -> float:
    sys.exit("no key")


async def none_left_later(question: Question, rollout: Trajectory) -> float:
    return none_left(question, rollout)


async def cancelled_later(_: Question, __: Trajectory) -> float:
    raise asyncio.CancelledError


async def leaves_later(question: Question, rollout: Trajectory) -> float:
    return leaves(question, rollout)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (none_left, "it raised StopIteration"),
        (none_left_later, "raised StopIteration"),
        (cancelled, "it raised CancelledError"),
        (cancelled_later, "it raised CancelledError"),
        (leaves, r"it raised SystemExit\('no key'\)"),
        (leaves_later, r"it raised SystemExit\('no key'\)"),
    ],
)
async def test_what_an_event_loop_takes_for_its_own_is_a_failure_like_any(function: OutcomeFn, said: str) -> None:
    with pytest.raises(RewardFailed, match=said):
        await asyncio.wait_for(Outcome(function, retries=0)(QUESTION, RIGHT), 5)


async def test_a_reward_that_nobody_waits_for_any_more_is_cancelled() -> None:
    async def slow(_: Question, __: Trajectory) -> float:
        await asyncio.sleep(3600)
        return 1.0

    scoring = asyncio.ensure_future(Outcome(slow)(QUESTION, RIGHT))
    await asyncio.sleep(0)
    scoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scoring


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), None, "good", {}, {"answer": float("nan")}])
def test_what_is_no_number_is_a_failure_and_not_a_score(wrong: float | Mapping[str, float]) -> None:
    with pytest.raises(RewardFailed, match="question 'q'"):
        scored(lambda _, __: wrong)


def test_a_name_that_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"reward\.outcome = 'f1_gated' is not known \(did you mean 'f1_ungated'\?\)"):
        make_outcome("f1_gated")
    with pytest.raises(ValueError, match=r"is no function: it is"):
        make_outcome("calibadv.rewards.outcome:FORMAT_BONUS")


@pytest.mark.parametrize(
    ("tokens", "taken"), [([3, 5], 0.0), ([4, 5], 0.25), ([4, 7], 0.75), ([4, 8], 1.0), ([90, 9], 1)]
)
def test_what_a_long_rollout_costs_by_hand(tokens: list[int], taken: float) -> None:
    # From 8 to 12 sampled tokens the penalty of 0.5 rises; what the turns read does not count.
    rollout = replace(RIGHT, turns=trajectory(0.0, tokens).turns)
    scored = asyncio.run(make_outcome("f1", overlong=Overlong(8, 12, 0.5))(QUESTION, rollout))
    assert scored.reward_parts == {"outcome": 0.8, "overlong": pytest.approx(-0.5 * taken)}
    assert scored.reward == pytest.approx(0.8 - 0.5 * taken)
    assert scored.answer_reward == 0.8  # F1, and with it what is silver, is what it was


def test_what_a_long_rollout_costs_stands_beside_a_reward_s_own_parts() -> None:
    rollout = replace(RIGHT, turns=trajectory(0.0, [20]).turns)
    scored = asyncio.run(make_outcome("format_bonus", overlong=Overlong(8, 12))(QUESTION, rollout))
    assert list(scored.reward_parts) == ["answer", "well_formed", "overlong"]
    assert scored.reward == pytest.approx(0.84 - 1)


def test_bounds_of_length_come_from_the_configuration() -> None:
    given = load_config(None, {"reward.overlong": [8, 12], "reward.overlong_penalty": 0.5}).reward
    assert given.length_penalty == Overlong(8, 12, 0.5)
    assert load_config(None, {}).reward.length_penalty is None
    with pytest.raises(
        ValueError, match=r"reward\.overlong = \[12, 8\]: expected the tokens at which the penalty begins"
    ):
        load_config(None, {"reward.overlong": [12, 8]})
