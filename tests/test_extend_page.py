"""docs/extend.md: which test executes which example. One without a test fails here."""

from __future__ import annotations

from pathlib import Path

from tests.extend_page import examples

TRAINED = "integration/test_extend.py"
REFUSAL = ""  # nothing to execute: it shows what a refusal looks like
EXECUTED = {
    "Your own reward, search engine, tools, dialogue and method": [TRAINED],
    "A reward": [TRAINED],
    "Rewards of turns": [TRAINED],
    "A judge model": ["rewards/test_judged_answer.py"],
    "A search engine": [TRAINED],
    "A search engine's JSON API": ["search/test_json_api.py"],
    "PostgreSQL with pgvector": ["search/test_pgvector.py"],
    "A tool of an MCP server": ["search/test_mcp_search.py"],
    "A ledger of answers, and limits": [TRAINED],
    "A dialogue": [TRAINED, REFUSAL],
    "Tools": [TRAINED, TRAINED, "rollout/test_mcp_tools.py"],
    "A method": [TRAINED],
    "A surrogate": [TRAINED],
}


def test_every_example_is_executed_by_a_test() -> None:
    assert {heading: len(blocks) for heading, blocks in examples().items()} == {
        heading: len(files) for heading, files in EXECUTED.items()
    }
    files = {file for of_heading in EXECUTED.values() for file in of_heading} - {REFUSAL}
    for file in sorted(files):
        assert "tests.extend_page import" in (Path(__file__).parent / file).read_text(encoding="utf-8"), file
