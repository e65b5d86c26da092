"""A running study on the terminal, live and plain."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console

from calibadv.json_lines import Tail
from calibadv.studies.grid import PlannedRun
from calibadv.views.study import LiveStudy, Newest, PlainStudy, open_study_view
from tests.studies.plan import make_plan


def log_step(run: PlannedRun, **metrics: float) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({name.replace("__", "/"): value for name, value in metrics.items()}) + "\n")


def terminal(height: int = 30) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=110, height=height)


def drawn(view: LiveStudy) -> list[list[str]]:
    page = Console(file=io.StringIO(), width=110, no_color=True)
    page.print(view.draw())
    assert isinstance(page.file, io.StringIO)
    return [line.split() for line in page.file.getvalue().splitlines()]


def test_a_tail_reads_whole_lines_as_they_come_and_begins_again_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Newest(Tail(path))
    assert not tail.update()
    path.write_text('{"step": 0, "eval/f1": 0.5}\n{"step": 1, "rew')
    assert tail.update()
    assert tail.values == {"step": 0, "eval/f1": 0.5}
    assert not tail.update()
    with path.open("a") as file:
        file.write('ard/f1": 0.25}\n')
    assert tail.update()
    assert tail.values == {"step": 1, "eval/f1": 0.5, "reward/f1": 0.25}
    path.write_text('{"step": 0}\n')
    assert tail.update()
    assert tail.values == {"step": 0}


def test_the_live_table_shows_each_run_with_its_newest_numbers_and_state(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    first, second, third, *_ = plan.runs
    view = LiveStudy(plan.runs, {first.name}, terminal())
    view.stage("Ray and the search app")
    assert drawn(view)[-1][-5:] == ["Ray", "and", "the", "search", "app"]
    view.started(second)
    log_step(second, step=0, eval__f1=0.27)
    log_step(second, step=3, reward__f1=0.5, reward__mean=0.4, policy__entropy=0.125)
    view.started(third)
    view.ended(third, "ValueError: no")
    lines = drawn(view)
    assert lines[1][:4] == ["grpo", "0", "0/16", "done"]
    assert lines[2][:8] == ["grpo", "1", "3/16", "0.270", "0.500", "0.400", "0.125", "running"]
    assert lines[3][:4] == ["calibadv", "0", "0/16", "failed"]
    assert lines[4] == ["calibadv", "1", "0/16", "waiting"]
    assert lines[-1] == ["1", "done,", "1", "running,", "1", "failed,", "2", "waiting"]


def test_the_time_of_a_run_is_a_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, seconds = make_plan(tmp_path), iter([100.0, 159.7])  # begins, ends
    view = LiveStudy(plan.runs, set(), terminal())
    with monkeypatch.context() as patched:
        patched.setattr("calibadv.views.study.time.monotonic", lambda: next(seconds))
        view.started(plan.runs[0])
        view.ended(plan.runs[0], "")
    assert drawn(view)[1][-1] == "1:00"


def test_a_small_terminal_shows_what_runs(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    view = LiveStudy(plan.runs, set(), terminal(height=8))  # room for three rows
    view.started(plan.runs[-1])
    assert [line[0] for line in drawn(view)[1:4]] == ["grpo", "grpo", "calibadv-half"]


def test_log_lines_pass_through_the_live_table_and_logging_is_restored(tmp_path: Path) -> None:
    console, root, own = terminal(), logging.getLogger(), logging.StreamHandler(io.StringIO())
    root.addHandler(own)
    try:
        with LiveStudy(make_plan(tmp_path).runs, set(), console):
            assert own not in root.handlers
            logging.getLogger("workflows.somewhere").warning("MLflow does not answer")
        assert own in root.handlers
    finally:
        root.removeHandler(own)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "MLflow does not answer" in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")  # the cursor is back


def test_plain_progress_is_a_line_for_begin_step_and_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plan = make_plan(tmp_path)
    one, two, *_ = plan.runs
    view = PlainStudy()
    view.started(one)
    view.started(two)
    view.say_steps()
    log_step(one, step=1, reward__f1=0.5, policy__entropy=0.1)
    view.say_steps()
    view.say_steps()
    view.ended(one, "")
    view.ended(two, "Traceback\n  in x\nValueError: no\n")
    assert [entry.getMessage() for entry in caplog.records] == [
        "grpo-seed0: begins",
        "grpo-seed1: begins",
        "grpo-seed0: step 1/16  F1 0.500  entropy 0.100",
        "grpo-seed0: done in 0 s",
        "grpo-seed1: failed after 0 s: ValueError: no",
    ]


def test_the_live_table_is_for_terminals_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    plan = make_plan(tmp_path)
    assert isinstance(open_study_view(plan.runs, set(), Console(file=io.StringIO())), PlainStudy)
    assert isinstance(open_study_view(plan.runs, set(), terminal()), LiveStudy)
    monkeypatch.setenv("CI", "1")
    assert isinstance(open_study_view(plan.runs, set(), terminal()), PlainStudy)
