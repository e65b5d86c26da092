"""docs/company.md is true: its commands and code, one after the other, on a small folder and with the pocket policy."""

from __future__ import annotations

import importlib
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ray import serve

from calibadv.cluster.local_ray import free_ports
from calibadv.config import load_config, to_toml
from calibadv.config.command_line import parse
from calibadv.data.questions import load_questions
from calibadv.json_lines import read_json_lines
from calibadv.pocket import policy_path
from calibadv.pocket.world import Entity, Half, Kind, build_world
from tests.authoring.author import author
from tests.integration.commands import ROOT
from tests.integration.runs import SMALL, WITHOUT_PLOTS
from tests.rewards.conftest import server
from tests.rewards.judge_server import JudgeServer
from workflows import one_run
from workflows.cli import COMMANDS

pytestmark = pytest.mark.integration
__all__ = ["server"]

TINY = SMALL | {
    "run.steps": "1",
    "data.questions_per_step": "2",
    "data.test_questions": "2",
    "search.num_cpus": "0.1",
    "sentinel.unready": "off",
    "rollout.template": "Question: {question}\n",
    "rollout.placement": "separate",
    "rollout.max_concurrent": "8",
    "rollout.max_prompt_tokens": "128",
    "rollout.max_turn_tokens": "160",
    "rollout.max_observation_tokens": "192",
    "rollout.max_tokens": "2048",
    "learner.learners": "0",
    "learner.dtype": "float32",
    "learner.gpus_per_learner": "0",
    "learner.gradient_checkpointing": "false",
    "cluster.gpus_per_engine": "0",
}


def test_the_page_leads_from_documents_to_feedback(
    local_ray: None,  # noqa: ARG001
    server: JudgeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    server.answer = author
    (port,) = free_ports(1)
    page = (ROOT / "docs" / "company.md").read_text(encoding="utf-8")
    for said, here in (
        ("http://127.0.0.1:8000/v1", server.url),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("Qwen/Qwen2.5-0.5B-Instruct", str(policy_path())),
        ("evaluate warm runs/company", "evaluate warm company=models:/company-agent/1"),  # what it has registered
        ("--questions 600 --hold-out 100", "--questions 12 --hold-out 4"),
        ("--serve.trace_share 1", f"--serve.trace_share 1 --serve.port {port}"),
    ):
        assert said in page
        page = page.replace(said, here)
    (recipe,) = blocks(page, "toml")
    Path("page.toml").write_text(recipe, encoding="utf-8")
    _, small = parse(ArgumentParser(), [part for key, value in TINY.items() for part in (f"--{key}", value)])
    Path("company.toml").write_text(to_toml(load_config(Path("page.toml"), small)), encoding="utf-8")
    write_documents(Path("documents"))
    read, ask = blocks(page, "python")

    def use() -> None:
        """Asks what the agent was trained on and accepts every answer."""
        for question in load_questions(Path("questions.parquet")):
            exec(ask.replace("Who is the mayor of Redford?", question.text), {})

    ran, used = [], []
    for block in blocks(page, ""):
        for line in block.replace("\\\n", "").splitlines():
            program, command, *arguments = shlex.split(line)
            assert program == "calibadv"
            ran.append(run(command, arguments, use))
            if ran[-1] == "questions_from":
                exec(read, {})
            if "from-feedback" in arguments:
                used.append([(one.text, one.golden_answers) for one in load_questions(Path("used.parquet"))])
    assert used[0] == used[1]  # by the file of thumbs and by MLflow, where all was written when the agent had ended
    assert ran == [
        *("prepare_data", "questions_from", "warm_start", "train", "train", "evaluate", "serve_agent"),
        *("prepare_data", "prepare_data", "train"),
    ]
    assert_true()


def blocks(page: str, language: str) -> list[str]:
    return [text for of, text in re.findall(r"^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if of == language]


def run(command: str, arguments: list[str], use: Callable[[], None]) -> str:
    """Runs a command of `calibadv` in this process, on the Ray of `local_ray`; the name of its file."""
    module = "questions_from" if "--from" in arguments else COMMANDS[command].module
    main = importlib.import_module(f"workflows.{COMMANDS[command].module}").main
    given: dict[str, Any] = {}
    if module == "train":
        given = {"train": partial(one_run.train, parts=WITHOUT_PLOTS)}
    elif module == "serve_agent":
        given = {"wait": use}
        serve.shutdown()  # in a terminal the search of the commands before has ended with them
    try:
        assert main(arguments, **given) == 0, arguments
    finally:
        if module == "serve_agent":
            serve.shutdown()  # a later test opens another port
    return module


def write_documents(folder: Path) -> None:
    """Pages of a few films and of what they name, as Markdown, HTML and text; and one that is none."""
    world = build_world(0)
    chosen: dict[str, Entity] = {}
    waiting = [film.name for film in world.of(Half.TRAIN, Kind.FILM)[:4]]
    while waiting and len(chosen) < 24:
        name = waiting.pop(0)
        if name in world.entities and name not in chosen:
            chosen[name] = world.entities[name]
            waiting += world.entities[name].facts.values()
    folder.mkdir()
    for number, entity in enumerate(chosen.values()):
        title, text = entity.name, entity.document.text
        suffix, content = (("md", f"# {title}\n\n{text}\n"), ("html", f"<h1>{title}</h1><p>{text}</p>"))[number % 2]
        (folder / f"{entity.kind}-{number}.{suffix}").write_text(content, encoding="utf-8")
    (folder / "logo.png").write_bytes(b"\x89PNG")


def assert_true() -> None:
    """What the page says of the files that are there now."""
    assert Path("corpus.jsonl.skipped.txt").read_text() == "logo.png: of a kind that is not read: .png\n"
    kept, held_out = load_questions(Path("questions.parquet")), load_questions(Path("questions-held-out.parquet"))
    assert (len(kept), len(held_out)) == (8, 4)
    assert {len(question.gold_doc_ids) for question in (*kept, *held_out)} == {1, 2, 3}
    assert [row["step"] for row in read_json_lines(Path("runs/company/metrics.jsonl"))] == [0, 1]
    (table,) = Path("runs/evaluation").glob("*.md")
    assert {"warm", "company"} <= set(re.findall(r"\w+", table.read_text()))
    version = MlflowClient("sqlite:///runs/mlflow.db").get_model_version_by_alias("company-agent", "newest")
    assert (int(version.version), "company" in version.description) == (1, True)
    passages = {row["id"] for row in read_json_lines(Path("corpus.jsonl"))}
    thumbs = list(read_json_lines(Path("runs/feedback.jsonl")))
    assert {document for thumb in thumbs for document in thumb["documents"]} <= passages
    assert {thumb["model"] for thumb in thumbs} == {"company-agent-newest"}
    used = load_questions(Path("used.parquet"))
    assert {question.text for question in used} <= {question.text for question in kept}
    assert {answer for question in used for answer in question.golden_answers} <= {thumb["answer"] for thumb in thumbs}
