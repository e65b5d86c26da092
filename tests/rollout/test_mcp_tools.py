"""Tools of a real MCP server, in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calibadv.config import load_config
from calibadv.rollout.mcp_tools import answered
from calibadv.rollout.protocols import ToolFailed
from calibadv.rollout.tools import Tool, ToolConfig, make_tools
from tests.extend_page import examples

COMMAND = (sys.executable, str(Path(__file__).with_name("mcp_calculator.py")))
SERVER = {"command": COMMAND, "env": ("CALCULATOR_TOLD",), "retries": 0, "timeout_s": 120.0}


def named(name: str, **settings: Any) -> Tool:
    (tool,) = make_tools([ToolConfig(**{**SERVER, "name": name, **settings})])
    return tool


def test_a_server_says_what_it_offers() -> None:
    every = make_tools([ToolConfig(**SERVER)])
    assert [tool.name for tool in every] == ["add", "told", "end", "wait", "release", "fail", "say", "hang"]
    about = every[0].schema["function"]
    assert about["description"] == "Adds two numbers."
    assert about["parameters"]["required"] == ["a", "b"]
    with pytest.raises(ValueError, match="has no tool 'divide'; it offers add, told, end, wait"):
        named("divide")


async def test_a_server_is_called_over_one_connection_and_started_again_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CALCULATOR_TOLD", "a secret")
    monkeypatch.setenv("CALCULATOR_UNTOLD", "another")
    every = {tool.name: tool for tool in make_tools([ToolConfig(**SERVER, max_tokens=9)])}
    results = await asyncio.gather(*(every["add"]({"a": a, "b": 1}) for a in range(8)))
    assert [result.text for result in results] == [str(a + 1) for a in range(8)]
    assert {result.max_tokens for result in results} == {9}
    told = await every["told"]({})
    assert told.text == "a secret, nothing"
    wrong = await every["add"]({"a": "x", "b": 1})  # the policy's fault
    assert (wrong.text or "").startswith("Error: ")
    with pytest.raises(ToolFailed, match="tool end: "):  # the environment's
        await every["end"]({})
    assert (await every["add"]({"a": 1, "b": 2})).text == "3"


async def test_a_call_that_fails_leaves_the_connection_to_the_others() -> None:
    every = {tool.name: tool for tool in make_tools([ToolConfig(**SERVER)])}
    waiting = asyncio.create_task(every["wait"]({}))
    assert (await every["add"]({"a": 1, "b": 2})).text == "3"
    with pytest.raises(ToolFailed, match="no quota"):
        await every["fail"]({})
    assert (await every["say"]({"words": ["half a pair:", "\ud83d"]})).text == "half a pair: ?"
    given_up = asyncio.create_task(every["wait"]({}))
    assert (await every["add"]({"a": 2, "b": 2})).text == "4"
    given_up.cancel()
    assert (await every["release"]({})).text == "done"
    assert (await waiting).text == "released"


async def test_a_server_that_hangs_is_started_again() -> None:
    config = ToolConfig(**SERVER | {"timeout_s": 1.0, "retries": 6})
    add, *_ = make_tools([config])
    assert (await add({"a": 1, "b": 2})).text == "3"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(config.timeout_s):
            await answered(config, "hang", {})
    assert (await add({"a": 2, "b": 2})).text == "4"


@pytest.mark.parametrize(
    "place",
    [{"command": ("/no/such/command",)}, {"command": (), "url": "http://127.0.0.1:9/mcp"}],
    ids=["no command", "nobody there"],
)
def test_a_server_that_does_not_answer_is_refused_in_a_line(place: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="does not answer") as error:
        make_tools([ToolConfig(**SERVER | place)])
    assert "\n" not in str(error.value)


@pytest.fixture
def url() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*COMMAND, str(port)], stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait()


async def test_a_server_is_reached_by_its_address_as_the_page_says(url: str) -> None:
    (_, function), _, (_, servers) = examples()["Tools"]
    shown = load_config(None, tomllib.loads(f"{function}\n{servers}".replace("http://127.0.0.1:8000/mcp", url)))
    *_, served = shown.rollout.tools
    (add,) = make_tools([served.model_copy(update={"timeout_s": 120.0})])
    assert (await add({"a": 20, "b": 22})).text == "42"
