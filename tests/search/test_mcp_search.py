"""A tool of a real MCP server, in a process of its own, as the search."""

from __future__ import annotations

import logging
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from calibadv.config import Config, ConfigError, load_config
from calibadv.data.corpus import passage_id
from calibadv.rollout.protocols import SearchFailed
from calibadv.search.client import RetryPolicy
from calibadv.search.elsewhere import search_elsewhere
from calibadv.search.mcp_api import McpApi
from calibadv.search.mcp_server import mcp_search
from calibadv.search.recorded import engine_of
from calibadv.search.settings import SearchConfig
from calibadv.training.user_functions import try_user_code
from calibadv.types import Document
from tests.build import QUESTION
from tests.extend_page import example

COMMAND = [sys.executable, str(Path(__file__).with_name("mcp_library.py"))]
OSLO = Document("7", "Oslo", "Oslo is the capital of Norway.", 0.5)
ADA = Document("8", "Ada", "Ada was born in London.", 0.25)
ONCE = RetryPolicy(timeout_s=120.0, patience_s=0.0)
QUICK = RetryPolicy(timeout_s=120.0, patience_s=60.0, base_delay_s=0.01, max_delay_s=0.02)


def settings(**mcp: Any) -> SearchConfig:
    return SearchConfig(top_k=2, mcp={"command": COMMAND, **mcp})


async def test_the_page_s_example_finds_documents() -> None:
    shown = tomllib.loads(example("A tool of an MCP server", "toml"))
    defaults = McpApi(arguments={"query": "{query}", "limit": "{k}"})  # as the page says
    assert McpApi(**shown["search"]["mcp"]).model_copy(update={"command": (), "env": ()}) == defaults
    shown["search"]["mcp"]["command"] = COMMAND
    search = mcp_search(load_config(None, shown).search, ONCE)
    assert await search("Where is Oslo ?") == (OSLO,)


async def test_its_documents_are_found_in_whatever_form_the_tool_gives_them() -> None:
    own = search_elsewhere(settings(arguments={"query": "{query}", "limit": "{k}"}).but(patience_s=0.0))()
    assert await own("Where is Oslo ?") == (OSLO,)
    assert await own("born in") == (ADA,)
    assert await own("nothing") == ()
    fields = {"results": "web.pages", "id": "url", "title": "name", "text": "snippets"}
    pages = mcp_search(settings(tool="pages", arguments={"question": "of {query}"}, **fields), ONCE)
    assert await pages("Ada") == (Document("a", "of Ada", "one. two."),)
    assert await mcp_search(settings(tool="as_json"), ONCE)("capital") == (OSLO,)
    texts = mcp_search(settings(tool="as_texts", text="").but(top_k=1), ONCE)
    assert await texts("Ada") == (Document(passage_id("", "Ada one"), "", "Ada one"),)


async def test_an_over_long_query_is_cut() -> None:
    texts = mcp_search(settings(tool="as_texts", text="").but(top_k=1, max_query_chars=20), ONCE)
    assert [document.text for document in await texts("x" * 50)] == [f"{'x' * 20} one"]


async def test_a_key_in_the_arguments_is_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBRARY_KEY", "s3cret")
    texts = mcp_search(settings(tool="as_texts", text="", arguments={"query": "$LIBRARY_KEY of {query}"}), ONCE)
    assert (await texts("Ada"))[0].text == "s3cret of Ada one"


async def test_what_fails_is_a_failed_search_and_a_server_that_ended_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SearchFailed, match=r"the MCP tool broken says: .*no index for oslo"):
        await mcp_search(settings(tool="broken"), ONCE)("oslo")
    with pytest.raises(SearchFailed, match=r"no result has a text at 'body'"):
        await mcp_search(settings(text="body"), ONCE)("capital")
    with pytest.raises(SearchFailed):
        await mcp_search(settings(command=["/no/such/command"]), ONCE)("oslo")
    monkeypatch.setenv("LIBRARY_FLAG", str(tmp_path / "ended"))
    assert await mcp_search(settings(tool="ends", env=["LIBRARY_FLAG"]), QUICK)("capital") == (OSLO,)
    assert (tmp_path / "ended").exists()


def tried(config: Config) -> None:
    try_user_code(config, config.run_method(), QUESTION)


def test_it_is_tried_before_a_run(caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(None, {"search": {"mcp": {"command": COMMAND, "tool": "as_json"}}})
    with caplog.at_level(logging.INFO):
        tried(config)
    assert f"search.mcp = '{COMMAND[0]} {COMMAND[1]}': 0 documents for 'who?'" in caplog.text
    broken = load_config(None, {"search": {"mcp": {"command": ["/no/such/command"]}}})
    with pytest.raises(ValueError, match=r"search\.mcp = '/no/such/command': "):
        tried(broken)


def test_server_tool_and_mapping_are_part_of_the_engine() -> None:
    assert engine_of(settings(), "") == engine_of(settings(), "")
    assert engine_of(settings(), "") != engine_of(settings(tool="pages"), "")
    assert engine_of(settings(), "") != engine_of(settings(text="body"), "")


@pytest.mark.parametrize(
    ("mcp", "said"),
    [
        ({"tool": "search"}, "expected either a command that starts the server or its url"),
        ({"command": ["x"], "url": "http://h/mcp"}, "expected either a command"),
        ({"command": ["x"], "arguments": {"q": "oslo"}}, r'put "\{query\}" into mcp.arguments'),
        (
            {"command": ["x"], "arguments": {"q": "{query}", "by": {"token": "abc"}}},
            r"mcp\.arguments\.by\.token may be",
        ),
        ({"command": ["x"], "tol": "y"}, r"there is no mcp\.tol \(did you mean 'tool'\?\); there are command, "),
        ({"command": "x"}, r"mcp\.command = 'x': Input should be a valid tuple"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(mcp: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(None, {"search": {"mcp": mcp}})
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="a search asks one of them, leave the others out"):
        load_config(None, {"search": {"mcp": {"command": ["x"]}, "url": "http://h"}})
