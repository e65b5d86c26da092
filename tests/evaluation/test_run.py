"""`python workflows/evaluate.py` whole, on the pocket policy: interrupted and taken up again, it gives the same table.

The torch engine and BM25 without reranker; Ray Data, Ray Serve and MLflow are real. A whole call costs about half a
minute of starting and stopping Ray, so that one serves all tests but one, which is made in this process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient

from tests.integration.commands import ROOT, ended, ray_folder, start
from workflows.command import run_command
from workflows.evaluate import main

pytestmark = pytest.mark.integration

QUESTIONS = 10


def arguments(base: Path) -> list[str]:
    settings = {
        "run.folder": str(base / "runs"),
        "run.cache": str(base / "cache"),
        "model.dtype": "float32",
        "rollout.engine": "torch",
        "rollout.engines": "1",
        "search.retriever": "bm25",
        "search.reranker": "none",
    }
    asked = ["pocket", "--set", "pocket=pocket", "--corpus", "pocket", "--questions", str(QUESTIONS)]
    given = [part for key, value in settings.items() for part in (f"--{key}", value)]
    return [*asked, *given]


def evaluate(base: Path, sockets: Path) -> str:
    """The output of one call, which must end well."""
    code, output = ended(start(ROOT / "workflows" / "evaluate.py", *arguments(base), cwd=base, ray=sockets))
    assert code == 0, output
    return output


@pytest.fixture(scope="module")
def sockets() -> Iterator[Path]:
    with ray_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, sockets: Path) -> Path:
    """Where one whole evaluation has been."""
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate(folder, sockets)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_question_is_answered_and_scored(base: Path) -> None:
    predictions = lines(base / "runs" / "evaluation" / "pocket" / "pocket" / "predictions.jsonl")
    assert [p["id"] for p in predictions] == [f"test/test_{i}" for i in range(QUESTIONS)]
    assert all(1 >= p["cover_em"] >= p["em"] >= 0 for p in predictions)
    assert {p["f1"] for p in predictions} - {0.0}  # it does answer
    assert all(p["tokens"] > 0 and p["perplexity"] >= 1 and not p["infra_failed"] for p in predictions)
    assert sum(p["searches"] for p in predictions) > 0
    assert {p["hops"] for p in predictions} <= {1, 2, 3}


def test_mlflow_has_a_run_of_the_model_with_its_figures_and_tables(base: Path) -> None:
    out = base / "runs" / "evaluation"
    client = MlflowClient(f"sqlite:///{base / 'runs' / 'mlflow.db'}")
    run = client.get_run(json.loads((out / "pocket" / "mlflow.json").read_text())["run_id"])
    figures = json.loads((out / "pocket" / "pocket" / "metrics.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.metrics["eval/pocket/f1"] == figures["f1"]["mean"]
    assert run.data.metrics["eval/pocket/questions"] == QUESTIONS
    files = {file.path for part in (None, "pocket") for file in client.list_artifacts(run.info.run_id, part)}
    assert {"table.md", "table.csv", "pocket/predictions.jsonl", "pocket/metrics.json"} <= files


@pytest.mark.usefixtures("local_ray")
def test_an_evaluation_cut_half_way_goes_on_to_the_same_table(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = base / "runs" / "evaluation"
    answers = out / "pocket" / "pocket" / "predictions.jsonl"
    whole = {path.name: path.read_bytes() for path in (answers, out / "table.md", out / "table.csv")}
    cut = whole["predictions.jsonl"].splitlines(keepends=True)
    answers.write_bytes(b"".join([*cut[3:7], cut[0][:-30]]))  # four answers, and one that a crash tore
    for name in ("table.md", "table.csv"):
        (out / name).unlink()
    assert run_command(lambda: main(arguments(base))) == 0
    output = "".join(capsys.readouterr())
    assert "6 questions; its engines start" in output
    assert {path.name: path.read_bytes() for path in (answers, out / "table.md", out / "table.csv")} == whole


def test_a_finished_evaluation_starts_nothing(
    no_ray: None,  # noqa: ARG001
    base: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(lambda: main(arguments(base))) == 0
    output = "".join(capsys.readouterr())
    assert "engines start" not in output
    assert "| pocket |" in output
    assert not ray.is_initialized()
