"""docs/company.md is true: its commands run on a small folder with the pocket policy, those that start Ray are read."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

from calibadv.config import load_config, to_toml
from calibadv.config.command_line import parse
from calibadv.data.questions import load_questions
from calibadv.pocket import policy_path
from calibadv.pocket.world import Entity, Half, Kind, build_world
from tests.authoring.author import author
from tests.integration.commands import ROOT
from tests.integration.runs import SMALL
from tests.rewards.conftest import server
from tests.rewards.judge_server import JudgeServer
from workflows.cli import COMMANDS
from workflows.evaluation_options import parse_command

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
    "tracking.report": "false",
}


def test_the_page_leads_from_documents_to_feedback(
    server: JudgeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    server.answer = author
    page = (ROOT / "docs" / "company.md").read_text(encoding="utf-8")
    for said, here in (
        ("http://127.0.0.1:8000/v1", server.url),
        ("Qwen/Qwen2.5-0.5B-Instruct", str(policy_path())),
        ("--questions 600 --hold-out 100", "--questions 12 --hold-out 4"),
        ("--model.path models:/company-agent@newest", "--model.path warm"),  # no run has registered one here
    ):
        assert said in page
        page = page.replace(said, here)
    (recipe,) = blocks(page, "toml")
    Path("page.toml").write_text(recipe, encoding="utf-8")
    _, small = parse(ArgumentParser(), [part for key, value in TINY.items() for part in (f"--{key}", value)])
    Path("company.toml").write_text(to_toml(load_config(Path("page.toml"), small)), encoding="utf-8")
    write_documents(Path("documents"))
    read, ask = blocks(page, "python")
    compile(ask, "company.md", "exec")
    thumbs = [
        {"id": question, "question": question, "answer": "Ada", "rating": "up", "model": "company-agent"}
        for question in ("Who?", "Where?")
    ]
    Path("runs").mkdir()
    Path("runs/feedback.jsonl").write_text("".join(json.dumps(one) + "\n" for one in thumbs), encoding="utf-8")

    ran = []
    for block in blocks(page, ""):
        for line in block.replace("\\\n", "").splitlines():
            program, command, *arguments = shlex.split(line)
            assert program == "calibadv"
            ran.append(run(command, arguments))
            if ran[-1] == "questions_from":
                exec(read, {})
    assert ran == [
        *("prepare_data", "questions_from", "warm_start", "train", "train", "evaluate", "serve_agent"),
        *("prepare_data", "train"),
    ]
    assert_true()


def blocks(page: str, language: str) -> list[str]:
    return [text for of, text in re.findall(r"^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if of == language]


def run(command: str, arguments: list[str]) -> str:
    """Runs a command of `calibadv` in this process, but reads those only that start Ray; the name of its file."""
    module = "questions_from" if "--from" in arguments else COMMANDS[command].module
    main = importlib.import_module(f"workflows.{COMMANDS[command].module}").main
    if module == "evaluate":
        parse_command(arguments, "")
    elif module == "train" and "--dry-run" not in arguments:
        assert arguments == ["--config", "company.toml"]
    elif module != "serve_agent":
        assert main(arguments) == 0, arguments
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
    used = load_questions(Path("used.parquet"))
    assert [question.golden_answers for question in used] == [("Ada",), ("Ada",)]
