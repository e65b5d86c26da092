"""`calibadv init`: the folder that it writes is one that a run accepts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from calibadv.data.questions import load_questions
from workflows import init, train


def test_what_it_writes_is_accepted_by_the_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main(["mine"]) == 0
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {
        *("recipe.toml", "reward.py", "search.py", "README.md", "questions.jsonl", "test.jsonl", "corpus.jsonl")
    }
    monkeypatch.chdir(tmp_path / "mine")
    with caplog.at_level(logging.INFO):
        assert train.main(["--config", "recipe.toml", "--dry-run"]) == 0
    question = load_questions(Path("questions.jsonl"))[0]
    assert f"reward.outcome reward.py:reward: 1 for a right answer to {question.id}, answer 1, thrift 0" in caplog.text
    assert f"search.tool = 'search.py:search': 3 documents for {question.text!r}: " in caplog.text
    assert not (tmp_path / "mine" / "runs").exists()


def test_its_search_finds_the_document_of_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from calibadv.search.settings import SearchConfig
    from calibadv.search.tool import load_tool

    monkeypatch.chdir(tmp_path)
    init.write_project(tmp_path / "mine")
    tool = load_tool(SearchConfig(tool=f"{tmp_path}/mine/search.py:search"))
    questions = [q for q in load_questions(tmp_path / "mine" / "test.jsonl") if len(q.gold_doc_ids) == 1][:20]
    found = [{document["id"] for document in _run(tool(question.sub_queries[0], 3))} for question in questions]
    assert sum(q.gold_doc_ids[0] in ids for q, ids in zip(questions, found, strict=True)) >= 18


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine is there already"):
        init.main([str(tmp_path / "mine")])
    assert list((tmp_path / "mine").iterdir()) == []


def _run(coroutine: object) -> list[dict[str, str]]:
    import asyncio

    return asyncio.run(coroutine)  # type: ignore[arg-type,no-any-return]
