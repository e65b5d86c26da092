"""One search for all engines: each query once, within limits, and what it counts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from calibadv.rollout.protocols import SearchFailed
from calibadv.search.client import RetryingSearch, RetryPolicy
from calibadv.search.ledger import Ledger
from calibadv.search.limits import Limits
from calibadv.search.recorded import RecordedSearch, engine_of, recorded_search
from calibadv.search.settings import SearchConfig
from calibadv.types import Document
from serve.shared_search import SearchOwner

CONFIG = SearchConfig(tool="mine.py:find", patience_s=0.0)


class Engine:
    """Answers with the query as a document's id; `failing` queries raise."""

    def __init__(self, *failing: str) -> None:
        self.asked: list[str] = []
        self.failing = failing
        self.policy = RetryPolicy(patience_s=0.0)

    async def __call__(self, query: str) -> tuple[Document, ...]:
        self.asked.append(query)
        await asyncio.sleep(0)
        if query in self.failing:
            raise ConnectionError("away")
        return (Document(query, "", f"answer {len(self.asked)}"),)

    def search(self) -> RetryingSearch:
        return RetryingSearch(self, self.policy)


def settings(tmp_path: Path, **more: Any) -> SearchConfig:
    return CONFIG.but(ledger=str(tmp_path / "l.sqlite"), ledger_engine="mine", **more)


def opened(config: SearchConfig, engine: Engine) -> RecordedSearch:
    return recorded_search(config, engine.search, engine_of(config, ""))


async def test_a_second_run_asks_the_engine_for_nothing_and_has_the_same_documents(tmp_path: Path) -> None:
    engine, config = Engine(), settings(tmp_path)
    first = opened(config, engine)
    found = [await first("ada"), await first("oslo"), await first("ada")]
    assert engine.asked == ["ada", "oslo"]
    second = opened(config, engine)
    assert [await second("ada"), await second("oslo"), await second("ada")] == found
    assert engine.asked == ["ada", "oslo"]
    assert second.take_counts() == {
        "search/queries": 3.0,
        "search/hits": 3.0,
        "search/shared": 0.0,
        "search/failed": 0.0,
        "search/calls": 0.0,
        "search/hit_rate": 1.0,
    }


async def test_queries_that_are_asked_at_once_are_one_call(tmp_path: Path) -> None:
    engine = Engine()
    search = opened(settings(tmp_path, call_price=0.5), engine)
    found = await asyncio.gather(*(search(query) for query in ("ada", "ada", "oslo", "ada")))
    assert engine.asked == ["ada", "oslo"]
    assert found[0] == found[1] == found[3]
    counts = search.take_counts()
    assert (counts["search/shared"], counts["search/calls"], counts["search/cost"]) == (2.0, 2.0, 1.0)
    assert counts["search/hit_rate"] == 0.0
    assert search.take_counts() == {}


async def test_one_who_gives_up_takes_the_answer_from_nobody(tmp_path: Path) -> None:
    engine = Engine()
    search = opened(settings(tmp_path), engine)
    gives_up, waits = asyncio.create_task(search("ada")), asyncio.create_task(search("ada"))
    await asyncio.sleep(0)
    gives_up.cancel()
    assert (await waits)[0].id == "ada"
    assert engine.asked == ["ada"]


async def test_the_engine_is_asked_for_the_normal_form_so_that_its_answer_is_that_of_all_its_spellings(
    tmp_path: Path,
) -> None:
    engine = Engine()
    search = opened(settings(tmp_path), engine)
    await search("  ada\n lovelace ")
    await search("ada lovelace")
    await search("Ada Lovelace")  # another query: an engine may tell capitals
    assert engine.asked == ["ada lovelace", "Ada Lovelace"]


async def test_a_failure_is_counted_and_asked_again_later(tmp_path: Path) -> None:
    engine = Engine("ada")
    search = opened(settings(tmp_path), engine)
    with pytest.raises(SearchFailed, match="away"):
        await search("ada")
    assert search.take_counts()["search/failed"] == 1.0
    engine.failing = ()
    assert (await search("ada"))[0].id == "ada"


async def test_replay_asks_nobody_and_what_is_not_recorded_is_a_failed_search(tmp_path: Path) -> None:
    engine, config = Engine(), settings(tmp_path)
    found = await opened(config, engine)("ada")
    replay = opened(config.but(ledger_mode="replay"), engine)
    assert await replay("ada") == found
    with pytest.raises(SearchFailed, match=r"no answer to 'oslo', and search\.ledger_mode = 'replay' asks no engine"):
        await replay("oslo")
    assert engine.asked == ["ada"]
    assert replay.take_counts()["search/failed"] == 1.0


async def test_calls_that_are_tried_again_are_counted_and_paid_for() -> None:
    engine = Engine("ada")
    engine.policy = RetryPolicy(patience_s=0.02, base_delay_s=0.001, max_delay_s=0.001)
    search = recorded_search(CONFIG.but(call_price=2.0), engine.search, {})
    with pytest.raises(SearchFailed):
        await search("ada")
    counts = search.take_counts()
    assert counts["search/calls"] == len(engine.asked) > 1
    assert counts["search/cost"] == 2.0 * len(engine.asked)
    assert "search/hit_rate" not in counts  # without a ledger


async def test_the_process_of_all_engines_answers_with_documents_or_with_why_there_are_none(tmp_path: Path) -> None:
    owner = SearchOwner(lambda: opened(settings(tmp_path), Engine("oslo")))
    assert await owner.take_counts() == {}
    assert isinstance(await owner.search("oslo"), SearchFailed)
    assert await owner.search("ada") == (Document("ada", "", "answer 2"),)
    assert (await owner.take_counts())["search/queries"] == 2.0


def test_what_decides_an_answer_is_part_of_the_engine(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def find(query, k):\n    return []\n", encoding="utf-8")
    tool = SearchConfig(tool=f"{file}:find")
    ours, there = engine_of(tool, ""), SearchConfig(url="http://h/retrieve")
    assert ours["tool"] == "find"
    assert len(ours["code"]) == 32
    assert ours == engine_of(tool.but(timeout_s=1.0, ledger=str(tmp_path / "l"), concurrency=2), "")
    assert ours != engine_of(tool.but(top_k=5), "")
    assert engine_of(there, "") != engine_of(there.but(url_shape="calibadv"), "")
    assert engine_of(there, "") != engine_of(there.but(url="http://g/retrieve"), "")
    same = {"ledger": "l", "ledger_engine": "wiki-18"}
    assert engine_of(there.but(**same), "") == engine_of(there.but(url="http://g/retrieve", **same), "")
    app = SearchConfig(retriever="bm25")
    assert engine_of(app, "a") == engine_of(app.but(replicas=4, device="cuda:0"), "a")
    assert engine_of(app, "a") != engine_of(app, "b")
    assert engine_of(app, "a") != engine_of(app.but(reranker="none"), "a")


def test_settings_of_a_ledger_need_one() -> None:
    with pytest.raises(ValueError, match="ledger_mode = 'replay' without a ledger: name its file"):
        SearchConfig(ledger_mode="replay")
    with pytest.raises(ValueError, match="ledger_engine = 'brave' without a ledger"):
        SearchConfig(ledger_engine="brave")
    assert not SearchConfig().together
    assert SearchConfig(ledger="l").together
    assert SearchConfig(concurrency=2).together


# ---- limits ----------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def __call__(self) -> float:
        return self.now_s


async def test_calls_begin_apart_in_the_order_in_which_they_came() -> None:
    clock = Clock()
    limits = Limits(4.0, sleep=clock.sleep, clock=clock)
    begun: list[tuple[int, float]] = []

    async def call(number: int) -> None:
        async with limits.place():
            begun.append((number, clock.now_s))

    await asyncio.gather(*(call(number) for number in range(4)))
    assert begun == [(0, 100.0), (1, 100.25), (2, 100.5), (3, 100.75)]
    clock.now_s = 200.0  # what was not used is no credit
    await asyncio.gather(*(call(number) for number in range(2)))
    assert begun[4:] == [(0, 200.0), (1, 200.25)]
    assert limits.calls == 6


async def test_no_more_calls_are_in_flight_than_there_are_places() -> None:
    limits, now, most = Limits(None, 3), 0, 0

    async def call() -> None:
        nonlocal now, most
        async with limits.place():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(call() for _ in range(10)))
    assert most == 3


async def test_waiting_for_a_place_takes_nothing_of_a_query_s_patience_or_time() -> None:
    clock, attempts = Clock(), 0

    async def call(query: str) -> tuple[Document, ...]:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise ConnectionError("away")
        return (Document(query, "", ""),)

    policy = RetryPolicy(timeout_s=1.0, patience_s=5.0, base_delay_s=1.0)
    limits = Limits(0.01, sleep=clock.sleep, clock=clock)  # a call in 100 s
    search = RetryingSearch(call, policy, sleep=clock.sleep, clock=clock, jitter=lambda: 0.5).within(limits.place)
    assert (await search("ada"))[0].id == "ada"
    assert clock.now_s == 300.0


async def test_a_recorded_search_keeps_its_limits() -> None:
    clock, engine = Clock(), Engine()
    limits = Limits(1.0, sleep=clock.sleep, clock=clock)
    search = recorded_search(CONFIG, engine.search, {}, limits)
    await asyncio.gather(*(search(str(number)) for number in range(5)))
    assert clock.now_s == 104.0


def test_a_ledger_is_closed_by_whoever_opened_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", {})
    ledger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["l.sqlite"]
