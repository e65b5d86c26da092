"""`calibadv report` on run folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.made_up import disputed_group, history, write_run
from tests.report.test_page import payload
from workflows.command import run_command
from workflows.report import main
from workflows.shipped import shipped_recipes


def test_the_page_of_one_run_lies_in_its_folder_beside_the_nearest_recipe(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine", history(2), groups={0: [disputed_group()]}, run__steps=16)
    assert main([str(run)]) == 0
    html = (run / "report.html").read_text(encoding="utf-8")
    (head,) = payload(html, "head")["runs"]
    assert head["settings"]["base"] in shipped_recipes()
    assert len(payload(html, "rollouts-0")["groups"]) == 1


def test_without_a_run_the_newest_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(lambda: main([])) == 2
    write_run(tmp_path / "runs" / "mine", history(2))
    assert main([]) == 0
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()


def test_several_runs_have_one_page_where_one_asks_for_it(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / f"s{seed}", history(2), run__seed=seed)) for seed in (0, 1)]
    assert main([*runs, "--out", str(tmp_path / "both.html"), "--groups", "0"]) == 0
    head = payload((tmp_path / "both.html").read_text(encoding="utf-8"), "head")
    assert [run["name"] for run in head["runs"]] == ["s0", "s1"]
    assert [cell["seeds"] for cell in head["cells"]] == [[0, 1]]


def test_a_studys_folder_stands_for_its_runs(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "study" / f"grpo-seed{seed}", history(2), method__name="grpo", run__seed=seed)
    (tmp_path / "study" / "plots").mkdir()
    assert main([str(tmp_path / "study")]) == 0
    head = payload((tmp_path / "study" / "report.html").read_text(encoding="utf-8"), "head")
    assert [(cell["name"], cell["seeds"]) for cell in head["cells"]] == [("grpo", [0, 1])]


def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write_run(tmp_path / f"s{seed}", history(2))) for seed in (0, 1)]
    assert run_command(lambda: main([*runs, "--log"])) == 2
    assert "2 runs are named: name one" in capsys.readouterr().err
    assert run_command(lambda: main([runs[0], "--log", "--out", str(tmp_path / "x.html")])) == 2
    assert "leave out --out" in capsys.readouterr().err
    assert run_command(lambda: main([runs[0], "--log"])) == 2
    assert "holds no run that was tracked" in capsys.readouterr().err
    assert run_command(lambda: main([str(tmp_path / "none")])) == 2
    assert "is no run's folder" in capsys.readouterr().err
