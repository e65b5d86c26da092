"""What is said at the end of a run, and under which names MLflow knows it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from calibadv.config import load_config
from calibadv.tracking.database import store_uri
from calibadv.tracking.provenance import ROOT
from calibadv.training.summary import final_metrics, logged_params, next_steps
from calibadv.views.summary import NextSteps

PAGE = "http://127.0.0.1:5000/#/experiments/1/runs/ab"


def test_every_parameter_of_the_method_is_one_of_the_run_s() -> None:
    params = logged_params(load_config(None, {"method.params.lam": 0.5}))
    assert params["method.name"] == "calibadv"
    assert params["method.params.lam"] == 0.5
    assert params["method.params.pre_think"] is True
    assert params["method.params.correct_threshold"] == 0.7
    assert "method.params" not in params


def test_final_figures_have_one_name_for_every_run_and_no_collapse_where_there_was_none() -> None:
    summary = {"f1_after": 0.4, "em_after": 0.3, "format_after": 1.0, "searches_after": 2.0, "wall_s": 5.0}
    whole = {"final/f1": 0.4, "final/em": 0.3, "final/format": 1.0, "final/searches": 2.0, "final/wall_s": 5.0}
    assert final_metrics(summary | {"collapse_step": None}) == whole
    assert final_metrics(summary | {"collapse_step": 21}) == whole | {"final/collapse_step": 21.0}


def test_the_printed_command_fits_the_folder_that_it_is_given_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert next_steps(ROOT / "runs", store_uri(ROOT / "runs"), "1", "ab") == NextSteps("make mlflow", PAGE)
    other = tmp_path / "my runs"
    assert next_steps(other, store_uri(other), "1", "ab") == NextSteps(f"make mlflow 'RUNS={other}'", PAGE)
    monkeypatch.chdir(tmp_path)
    assert next_steps(other, store_uri(other), "1", "ab") == NextSteps(f"make -C {ROOT} mlflow 'RUNS={other}'", PAGE)
    # MLflow did not answer: no page of the run is known
    assert next_steps(other, store_uri(other), None, None) == NextSteps(f"make -C {ROOT} mlflow 'RUNS={other}'")


def test_a_server_is_named_by_the_run_s_page(tmp_path: Path) -> None:
    there = "https://mlflow.example/#/experiments/1/runs/ab"
    assert next_steps(tmp_path, "https://mlflow.example", "1", "ab") == NextSteps(page=there)
    assert next_steps(tmp_path, "https://mlflow.example", None, None) == NextSteps(page="https://mlflow.example")


def test_make_passes_folder_and_port_on() -> None:
    command = ["make", "-n", "-C", str(ROOT), "mlflow", "RUNS=/tmp/my runs", "PORT=5001"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert '-m calibadv.tracking.pages "$RUNS" --port 5001' in said
