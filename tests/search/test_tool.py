"""A search function of the user's own, as rollouts ask it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from calibadv.rollout.protocols import SearchFailed
from calibadv.search.settings import SearchConfig
from calibadv.search.tool import load_tool, tool_search
from calibadv.types import Document
from serve.search_client import search_factory

CONFIG = SearchConfig(tool="tests.search.test_tool:find", top_k=2, patience_s=0.0)
OSLO = {"id": "o", "title": "Oslo", "text": "Oslo is in Norway."}


def find(query: str, k: int) -> list[Any]:
    return [Document("a", query, f"asked for {k}"), OSLO, OSLO]


async def find_later(query: str, k: int) -> list[Any]:
    return find(query, k)


@pytest.mark.parametrize("function", [find, find_later])
async def test_documents_and_mappings_come_back_as_documents_at_most_top_k(function: Any) -> None:
    assert await tool_search(CONFIG, function)("ada") == (
        Document("a", "ada", "asked for 2"),
        Document("o", "Oslo", "Oslo is in Norway."),
    )


async def test_an_over_long_query_is_cut() -> None:
    assert (await tool_search(CONFIG.but(max_query_chars=20), find)("x" * 50))[0].title == "x" * 20


async def test_rollouts_are_given_the_function_that_the_setting_names() -> None:
    assert (await search_factory(CONFIG, "no app")()("ada"))[0].title == "ada"


@pytest.mark.parametrize(
    ("returned", "said"),
    [("text", "returned str, expected a list"), ([{"id": 1}], "got {'id': 1}"), (None, "returned NoneType")],
)
async def test_what_is_no_list_of_documents_is_a_failed_search(returned: Any, said: str) -> None:
    with pytest.raises(SearchFailed, match=said):
        await tool_search(CONFIG, lambda *_: returned)("ada")


async def test_a_function_that_raises_is_tried_again() -> None:
    calls: list[str] = []

    def flaky(query: str, _: int) -> list[Any]:
        calls.append(query)
        if len(calls) == 1:
            raise ConnectionError("away")
        return [OSLO]

    assert len(await tool_search(CONFIG.but(patience_s=30.0), flaky)("ada")) == 1
    assert calls == ["ada", "ada"]


async def test_one_that_finds_no_match_and_says_so_by_stop_iteration_is_a_failed_search() -> None:
    with pytest.raises(SearchFailed, match="it raised StopIteration"):
        await asyncio.wait_for(tool_search(CONFIG, lambda *_: [next(iter(()))])("ada"), 5)


def test_a_search_asks_one_thing() -> None:
    assert CONFIG.elsewhere
    assert not SearchConfig().elsewhere
    with pytest.raises(ValueError, match="a search asks one of them"):
        CONFIG.but(url="http://127.0.0.1:8000/retrieve")
    with pytest.raises(ValueError, match=r"search\.tool = .* is no function"):
        load_tool(CONFIG.but(tool="tests.search.test_tool:OSLO"))
