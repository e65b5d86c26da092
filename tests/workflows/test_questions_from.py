"""`prepare_data.py questions --from CORPUS`: questions that a model writes, in the schema that trains."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from calibadv.data.questions import load_questions
from tests.authoring.conftest import WORLD, api, server
from tests.rewards.judge_server import JudgeServer, reply
from workflows import prepare_data
from workflows.command import run_command

__all__ = ["api", "server"]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"id": one.id, "title": one.title, "text": one.text}) + "\n" for one in WORLD]
    Path("corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    return "corpus.jsonl"


def run(corpus: str, url: str, *more: str) -> int:
    search = ("--search.retriever", "bm25", "--search.reranker", "none", "--search.top_k", "3")
    judge = ("--judge", url, "--judge-model", "m")
    return prepare_data.main(["questions", "--from", corpus, "out.parquet", *judge, *search, *more])


def test_a_corpus_becomes_questions_that_train(
    corpus: str, api: JudgeServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "k-1")
    with caplog.at_level(logging.INFO):
        assert run(corpus, api.url, "--hold-out", "2", "--price-in", "1", "--price-out", "2", "--name", "acme") == 0
    kept, held_out = load_questions(Path("out.parquet")), load_questions(Path("out-held-out.parquet"))
    assert (len(kept), len(held_out)) == (4, 2)
    assert all(question.id.startswith("acme/") for question in (*kept, *held_out))
    assert all(question.sub_queries and question.metadata["hop_answers"] for question in kept)
    assert set(api.keys) == {"Bearer k-1"}
    calls = len(api.requests)
    for said in (
        f"{calls} calls (0 failed), 0 replies from out.parquet.replies.sqlite",
        f"{110 * calls} tokens, cost {120e-6 * calls:.4g}",
        "of 9 groups of passages: 6 kept, 3 the model found no question in them",
        "gold passages by their step's search: 100% first, 100% of the first 3 (10 searched)",
        "kept by hops: 1: 3, 2: 2, 3: 1",
        "6 of 200 questions: every passage was asked about",
    ):
        assert said in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert run(corpus, api.url, "--hold-out", "2", "--name", "acme") == 0
    assert f"0 calls (0 failed), {calls} replies" in caplog.text
    assert load_questions(Path("out.parquet")) == kept


def test_what_cannot_be_is_refused_before_a_call(
    corpus: str, api: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*more: str) -> str:
        assert run_command(lambda: run(corpus, *more)) == 2
        return capsys.readouterr().err

    assert "judge_url is 'nowhere'" in refused("nowhere")
    assert "--max-cost needs prices" in refused(api.url, "--max-cost", "1")
    assert "--hops 4; expected some of 1,2,3" in refused(api.url, "--hops", "4")
    assert "unknown key 'search.top_q' (did you mean 'search.top_k'?)" in refused(api.url, "--search.top_q", "4")
    assert api.requests == []


def test_a_model_that_writes_nothing_good_leaves_no_file(
    corpus: str, api: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer = lambda _prompt, _number: (200, reply("I would rather not."))
    assert run_command(lambda: run(corpus, api.url, "--questions", "3")) == 2
    assert "no question was kept (9 reply that cannot be read); expected at least one." in capsys.readouterr().err
    assert not Path("out.parquet").exists()
