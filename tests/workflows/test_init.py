"""`calibadv init`: the folder that it writes is one that trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibadv.data.questions import load_questions
from tests.integration.runs import lines, made_here
from workflows import init

FOLDER = {*("recipe.toml", "reward.py", "search.py", "README.md", "questions.jsonl", "test.jsonl", "corpus.jsonl")}


@pytest.mark.integration
@pytest.mark.usefixtures("local_ray")
def test_what_it_writes_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main(["mine"]) == 0
    assert {path.name for path in (tmp_path / "mine").iterdir()} == FOLDER
    monkeypatch.chdir(tmp_path / "mine")
    question = load_questions(Path("questions.jsonl"))[0]
    # Fewer questions and engines, which are torch's, and no evaluation but the first; all else as the folder says.
    fewer = {
        "run.steps": "2",
        "data.questions_per_step": "4",
        "data.test_questions": "4",
        "rollout.engine": "torch",
        "rollout.engines": "1",
        "learner.minibatch_rollouts": "10",
        "evaluation.every": "none",
    }
    code, said = made_here(["--config", "recipe.toml", *(p for k, v in fewer.items() for p in (f"--{k}", v))], capsys)
    assert code == 0, said
    assert f"reward.outcome reward.py:reward: 1 for a right answer to {question.id}, answer 1, thrift 0" in said
    assert f"search.tool = 'search.py:search': 3 documents for {question.text!r}: " in said
    _, *steps = lines(Path("runs") / "first" / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        assert step["rollout/searches"] > 0
        assert step["reward/part_answer"] + step["reward/part_thrift"] == pytest.approx(step["reward/mean"], abs=1e-6)
    known = {json.loads(line)["id"] for line in Path("corpus.jsonl").read_text(encoding="utf-8").splitlines()}
    rollouts = lines(Path("runs") / "first" / "rollouts.jsonl")
    found = {document["id"] for row in rollouts for turn in row["turns"] for document in turn["documents"]}
    assert found
    assert found <= known


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
