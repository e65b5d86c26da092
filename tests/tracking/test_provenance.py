"""What a run says of itself in MLflow."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest

from calibadv.methods import METHODS
from calibadv.tracking import provenance
from calibadv.tracking.provenance import ROOT, WHERE, command_line, method_color, note


def test_the_description_has_the_table_and_the_command() -> None:
    text = note("**grpo**", {"f1": 0.25, "em": 0.2}, {"f1": 0.75, "em": 0.1}, "python workflows/train.py --run.seed 1")
    assert text.splitlines() == [
        "**grpo**",
        "",
        "| held-out questions | before | after | change |",
        "|---|---:|---:|---:|",
        "| f1 | 0.250 | 0.750 | +0.500 |",
        "| em | 0.200 | 0.100 | -0.100 |",
        "",
        WHERE,
        "",
        "```",
        "python workflows/train.py --run.seed 1",
        "```",
    ]
    assert all(name in WHERE for name in ("Traces", "report.html", "model"))
    assert "|" not in note("**grpo**, not finished", {}, {}, "python workflows/train.py")


def test_the_command_can_be_given_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", [str(ROOT / "workflows" / "train.py"), "--run.name", "my run"])
    assert command_line(tmp_path) == "python workflows/train.py --run.name 'my run'"
    monkeypatch.setattr("sys.argv", ["/opt/ray/default_worker.py", "--node-ip", "127.0.0.1"])  # a study's trial
    assert command_line(tmp_path) == f"python workflows/train.py --config {tmp_path}/config.toml"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert provenance.provenance()["mlflow.user"] == str(os.getuid())


def test_code_that_is_no_checkout_has_no_commit(tmp_path: Path) -> None:
    assert "mlflow.source.git.commit" not in provenance.provenance(tmp_path)


def test_every_method_has_a_colour_of_its_own_and_one_of_your_own_always_the_same() -> None:
    colors = {method: method_color(method) for method in METHODS}
    assert len(set(colors.values())) == len(METHODS)
    assert method_color("mine") == method_color("mine")
