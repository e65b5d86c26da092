"""`reward.outcome = "judge"`, against a real HTTP server that answers, errs, hangs or is gone."""

from __future__ import annotations

import asyncio
import logging
import pickle
import tomllib
from dataclasses import replace

import pytest

from calibadv.cluster.factories import outcome_of
from calibadv.config import Config, load_config
from calibadv.rewards.judge import Endpoint
from calibadv.rewards.judged_answer import UnreadableVerdict
from calibadv.rewards.outcome import JUDGE, Outcome, RewardFailed, make_outcome
from calibadv.rewards.verdicts import answer_prompt, answer_verdict
from calibadv.training.user_functions import try_user_code
from calibadv.types import Question
from tests.build import trajectory
from tests.extend_page import example
from tests.rewards.judge_server import DRIP, Answer, JudgeServer, reply

QUESTION = Question("q", "Who wrote the first program?", ("Ada Lovelace", "Lovelace"))
ROLLOUT = replace(trajectory(0.8, [2], format_reward=1.0), answer="the countess Lovelace", answer_reward=0.5)


def judged(server: JudgeServer, **changes: float) -> Outcome:
    return make_outcome(JUDGE, judge=replace(Endpoint(server.url, "judge", retries=0), **changes))


@pytest.mark.parametrize(("verdict", "score"), [("1", 1.0), ("0", 0.0)])
async def test_the_verdict_is_the_reward(server: JudgeServer, verdict: str, score: float) -> None:
    server.answer = lambda _prompt, _number: (200, reply(f"<think>Hm. VERDICT: 1?</think>\nVERDICT: {verdict}"))
    scored = await judged(server)(QUESTION, ROLLOUT)
    assert (scored.reward, scored.answer_reward) == (score, 0.5)
    assert server.prompts == [answer_prompt(QUESTION, "the countess Lovelace")]
    assert "Golden answers: Ada Lovelace | Lovelace\nAnswer: the countess Lovelace" in server.prompts[0]


async def test_it_goes_to_another_process_before_it_has_asked(server: JudgeServer) -> None:
    sent = pickle.loads(pickle.dumps(judged(server)))
    assert (await sent(QUESTION, ROLLOUT)).reward == 1.0
    assert server.keys == ["Bearer none"]


async def test_what_needs_no_judge_is_no_call(server: JudgeServer) -> None:
    outcome = judged(server)
    exact = replace(ROLLOUT, answer="the LOVELACE.")
    rewards = [
        (await outcome(QUESTION, rollout)).reward
        for rollout in (
            exact,
            replace(exact, format_reward=0.0),
            replace(ROLLOUT, format_reward=0.0),
            replace(ROLLOUT, answer=""),
        )
    ]
    assert rewards == [1.0, 0.0, 0.0, 0.0]
    assert server.requests == []


@pytest.mark.parametrize("said", ["", "It is right.", "VERDICT: 0.5", "VERDICT: yes", "VERDICT: 1\nVERDICT: 0"])
async def test_a_verdict_that_cannot_be_read_is_no_score(server: JudgeServer, said: str) -> None:
    server.answer = lambda _prompt, _number: (200, reply(said))
    assert answer_verdict(said) is None
    with pytest.raises(RewardFailed, match="verdict cannot be read") as raised:
        await judged(server)(QUESTION, ROLLOUT)
    assert isinstance(raised.value.__cause__, UnreadableVerdict)


async def test_a_failing_judge_is_asked_again_and_then_no_score(
    server: JudgeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda _prompt, number: (503, "{}") if number < 2 else (200, reply("VERDICT: 1"))
    assert (await judged(server, retries=2)(QUESTION, ROLLOUT)).reward == 1.0
    assert len(server.requests) == 3
    server.answer = lambda _prompt, _number: (500, "{}")
    with pytest.raises(RewardFailed, match=r"question 'q' \(ConnectionError: the judge judge at http://127"):
        await judged(server, retries=1)(QUESTION, ROLLOUT)
    assert len(server.requests) == 5
    assert "such rollouts are not scored, see reward/failed_count" in caplog.text


async def test_a_judge_that_never_ends_is_given_up(server: JudgeServer) -> None:
    server.answer = lambda _prompt, _number: (200, DRIP)
    with pytest.raises(RewardFailed, match="gave no reply"):
        await judged(server, timeout_s=0.2, longest_pause_s=0.1)(QUESTION, ROLLOUT)


def unhurried(server: JudgeServer) -> Answer:
    def answer(_prompt: str, _number: int) -> tuple[int, str]:
        server.closing.wait(0.05)
        return 200, reply("VERDICT: 1")

    return answer


async def test_no_more_calls_than_allowed_are_in_flight(server: JudgeServer) -> None:
    server.answer = unhurried(server)
    outcome = judged(server, concurrency=2)
    rollouts = [replace(ROLLOUT, answer=f"answer {number}") for number in range(6)]
    scored = await asyncio.gather(*(outcome(QUESTION, rollout) for rollout in rollouts))
    assert [rollout.reward for rollout in scored] == [1.0] * 6
    assert len(server.requests) == 6
    assert server.most_in_flight <= 2


async def test_the_bound_is_that_of_all_engines_together(server: JudgeServer) -> None:
    server.answer = unhurried(server)
    given = {"reward.outcome": "judge", "reward.judge_url": server.url, "reward.judge_model": "big"}
    config = load_config(None, given | {"rollout.engines": 2, "reward.judge_concurrency": 5})
    engines = [outcome_of(config, config.run_method()) for _ in range(2)]  # what each engine's process makes
    rollouts = [replace(ROLLOUT, answer=f"answer {number}") for number in range(8)]
    await asyncio.gather(*(outcome(QUESTION, rollout) for outcome in engines for rollout in rollouts))
    assert len(server.requests) == 16
    assert server.most_in_flight <= 4  # 2 each


async def test_the_page_s_example_asks_a_judge(server: JudgeServer) -> None:
    shown = example("A judge model", "toml")
    config = load_config(None, tomllib.loads(shown.replace("http://127.0.0.1:8000/v1", server.url)))
    assert config.reward.judge == Endpoint(server.url, "NAME", concurrency=64)
    assert (
        await outcome_of(config, config.run_method())(QUESTION, replace(ROLLOUT, answer="Lady Lovelace"))
    ).reward == 1
    (asked,) = server.requests
    assert asked["model"] == "NAME"


def test_the_configuration_says_where_it_is() -> None:
    given = {"reward.outcome": "judge", "reward.judge_url": "http://127.0.0.1:9/v1", "reward.judge_model": "big"}
    config = load_config(None, given | {"reward.judge_concurrency": 8, "reward.judge_retries": 0})
    assert config.reward.judge == Endpoint("http://127.0.0.1:9/v1", "big", concurrency=8, retries=0)
    assert load_config(None, {"reward.judge_url": "http://127.0.0.1:9/v1"}).reward.judge is None
    with pytest.raises(ValueError, match=r"judge_url is '', expected the address of an OpenAI-compatible API"):
        load_config(None, {"reward.outcome": "judge"})
    with pytest.raises(ValueError, match=r"judge_concurrency = 4 calls over all rollout\.engines = 8 leave"):
        load_config(None, given | {"reward.judge_concurrency": 4})
    with pytest.raises(ValueError, match=r"judge_model is ''"):
        load_config(None, given | {"reward.judge_model": ""})
    with pytest.raises(ValueError, match=r"'juge' is not known \(did you mean 'judge'\?\)"):
        load_config(None, {"reward.outcome": "juge"})


def tried(config: Config) -> None:
    try_user_code(config, config.run_method(), QUESTION)


def test_it_is_tried_before_a_run(server: JudgeServer, caplog: pytest.LogCaptureFixture) -> None:
    given = {"reward.outcome": "judge", "reward.judge_url": server.url, "reward.judge_model": "big"}
    config = load_config(None, given | {"reward.judge_retries": 0})
    with caplog.at_level(logging.INFO):
        tried(config)
    assert "reward.outcome judge: 1 for the answer 'It is Ada Lovelace, I think.' to q" in caplog.text
    server.answer = lambda _prompt, _number: (404, "{}")
    with pytest.raises(ValueError, match=r"reward\.outcome = 'judge': the judge big at http://127\.0\.0\.1"):
        tried(config)
