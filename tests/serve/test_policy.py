"""The policy's deployment in this process: what is served is what an evaluation rolls out, and a lost engine is ill."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from math import isfinite
from typing import Any

import numpy as np
import pytest

from calibadv.cluster.factories import make_roller
from calibadv.config import load_config
from calibadv.data.corpus import load_corpus
from calibadv.data.questions import load_questions
from calibadv.pocket import policy_path, write_pocket_world
from calibadv.rollout.protocols import EngineDied, Generation, Sampled, Sampling
from calibadv.rollout.seeds import sampling_seed
from calibadv.search.build import build_pipeline
from calibadv.search.settings import SearchConfig
from calibadv.types import Document, IntArray, Trajectory
from serve.agent.news import Accepted, Asked, Refused, Written
from serve.agent.policy import Policy, make_parts
from tests.serve.world import Endless, parts
from workflows.shipped import RECIPES

QUESTIONS = 6


async def test_served_greedy_answers_are_those_of_the_evaluation_token_by_token(tmp_path: Any) -> None:
    config = load_config(RECIPES / "pocket.toml", {"rollout.engine": "torch"})
    world = write_pocket_world(tmp_path / "pocket")
    words = SearchConfig(retriever="bm25", reranker="none")
    pipeline = build_pipeline(load_corpus(world.corpus), words, tmp_path)

    async def search(query: str) -> tuple[Document, ...]:
        return pipeline.search_batch([query])[0]

    method, folder = config.method.made, str(policy_path())
    made = make_parts(config, method, folder, lambda: search, ())
    roller, policy = make_roller(config, method, folder, search), Policy(lambda: made)
    heard = False
    for number, question in enumerate(load_questions(world.test)[:QUESTIONS]):
        rolled = await roller.evaluate(question, made.engine, step=0, version=0)
        assert rolled.group is not None
        (evaluated,) = rolled.group.trajectories
        passed = [news async for news in policy.roll(Asked(question.text, as_written=number % 2 == 0))]
        first, (*_, last_turn, served) = passed[0], passed[-1]
        written = "".join(one.answer for news in passed for one in news if isinstance(one, Written))
        assert (served.answer or "").startswith(written)
        heard |= bool(written)
        assert isinstance(last_turn, Sampled)
        assert isinstance(served, Trajectory)
        assert first == (Accepted(len(evaluated.prompt_ids)),)
        np.testing.assert_array_equal(served.prompt_ids, evaluated.prompt_ids)
        assert served.answer == evaluated.answer
        for ours, theirs in zip(served.turns, evaluated.turns, strict=True):
            np.testing.assert_array_equal(ours.action_ids, theirs.action_ids)
            np.testing.assert_array_equal(ours.observation_ids, theirs.observation_ids)
            np.testing.assert_array_equal(ours.logprobs, theirs.logprobs)
    made.engine.close()
    assert heard


async def test_each_turn_is_sampled_as_it_is_asked_with_a_seed_of_its_own() -> None:
    engine = Endless()
    policy = Policy(lambda: parts(engine))
    for asked in (Asked("Where?", temperature=0.7, top_p=0.9, seed=5), Asked("Where?", top_p=0.9)):
        [news async for news in policy.roll(asked)]
    seeds = [sampling_seed(0, 0, "served", seed, turn) for seed in (5, 0) for turn in (0, 1)]
    assert len(set(seeds)) == 4
    assert [one.seed for one in engine.samplings] == seeds
    assert [(one.temperature, one.top_p) for one in engine.samplings] == [(0.7, 0.9)] * 2 + [(0.0, 1.0)] * 2


async def test_text_waits_the_longer_the_more_rollouts_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Endless):
        async def __call__(self, prompt_ids: IntArray, sampling: Sampling) -> Generation:
            for _ in range(9):  # so that each turn's news passes alone
                await asyncio.sleep(0)
            return await super().__call__(prompt_ids, sampling)

    unit_s, at, waits = 1e6, asyncio.timeout_at, set[int]()

    def timeout_at(until_s: float) -> Any:
        if isfinite(until_s):  # the first news waits for nothing
            waits.add(round((until_s - asyncio.get_running_loop().time()) / unit_s))
        return at(until_s)

    monkeypatch.setattr("serve.agent.policy.TEXT_EVERY_S", unit_s)
    monkeypatch.setattr(asyncio, "timeout_at", timeout_at)
    policy = Policy(lambda: parts(Slow()))

    async def rolled() -> None:
        [news async for news in policy.roll(Asked("Where?"))]

    async with aclosing(policy.roll(Asked("Where?"))) as left:  # before its end
        assert [await anext(left) for _ in range(2)]
        await rolled()
    assert waits == {2}
    await rolled()
    assert waits == {1, 2}


async def test_a_question_over_the_budget_is_refused_and_nothing_is_sampled() -> None:
    engine = Endless()
    policy = Policy(lambda: parts(engine))
    ((news,),) = [news async for news in policy.roll(Asked("Oslo " * 3000))]
    assert isinstance(news, Refused)
    assert engine.samplings == []


async def test_a_lost_engine_makes_the_replica_ill_and_is_never_an_answer() -> None:
    class Dead(Endless):
        async def __call__(self, *_: Any) -> Any:
            raise EngineDied("out of memory")

    policy = Policy(lambda: parts(Dead()))
    await policy.check_health()
    with pytest.raises(EngineDied):
        [news async for news in policy.roll(Asked("Where?"))]
    with pytest.raises(RuntimeError, match="the engine is lost: out of memory"):
        await policy.check_health()


async def test_readiness_samples_a_token_and_searches_unless_an_answer_has_just_proved_both() -> None:
    engine = Endless()
    policy = Policy(lambda: parts(engine))
    await policy.ready()
    assert [one.max_tokens for one in engine.samplings] == [1]
    await policy.ready()
    assert len(engine.samplings) == 1
