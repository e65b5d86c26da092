"""A policy that cannot write the format, through the whole command: it ends at once, and says how to teach it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from calibadv.config.command_line import parse
from calibadv.training.readiness import Unready
from tests.build import jsonl
from tests.integration.runs import made_here
from tests.training.untaught import untaught
from workflows import one_run, warm_start

pytestmark = pytest.mark.integration

PASSAGES = [
    {"id": "d1", "title": "Ada", "text": "Ada was born in Oslo."},
    {"id": "d2", "title": "Oslo", "text": "Oslo is a town in Norway."},
]
SMALL = {
    "run.steps": "50",
    "data.questions_per_step": "4",
    "rollout.engine": "torch",
    "rollout.torch_dtype": "float32",
    "rollout.engines": "1",
    "rollout.samples": "3",
    "learner.minibatch_rollouts": "6",
    "search.retriever": "bm25",
    "search.reranker": "none",
}


@pytest.mark.usefixtures("local_ray")
def test_the_readme_s_own_data_command_ends_at_once_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    questions = [
        {
            "id": str(n),
            "question": f"In which country was person {n} born?",
            "golden_answers": ["Norway"],
            "sub_queries": [f"person {n} born", "country of Oslo"],
        }
        for n in range(100)
    ]
    given = {
        "run.cache": str(tmp_path / "cache"),
        "model.path": str(untaught(tmp_path).relative_to(tmp_path)),
        "data.train": jsonl(tmp_path / "train.jsonl", *questions[:20]).name,
        "data.test": jsonl(tmp_path / "test.jsonl", *questions[20:]).name,
        "data.corpus": jsonl(tmp_path / "corpus.jsonl", *PASSAGES).name,
    }
    arguments = [part for key, value in (SMALL | given).items() for part in (f"--{key}", value)]
    code, output = made_here(arguments, capsys)
    assert code == one_run.ENDS[Unready], output
    (said,) = [line for line in output.splitlines() if "Teach it first: " in line]
    assert "0 of 64 rollouts are well-formed" in said
    _, option, module, *taught = shlex.split(said.partition("Teach it first: ")[2].partition("; then train")[0])
    assert (option, module) == ("-m", "workflows.warm_start")
    known, overrides = parse(warm_start.warm_start_parser(), taught)
    assert (known.questions, known.corpus, overrides) == (Path("train.jsonl"), Path("corpus.jsonl"), {})
    assert (tmp_path / known.config).is_file()
    assert "Traceback" not in output
    asked = (tmp_path / "runs" / "calibadv-seed0" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(asked) == 64  # of 80: it did not wait for the others
