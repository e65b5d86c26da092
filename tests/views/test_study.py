"""A running study on the terminal, live and plain, and what a trial asks Ray for."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console

from calibadv.config import load_config
from calibadv.json_lines import Tail
from calibadv.studies.grid import PlannedRun
from calibadv.studies.live import LiveProgress, Newest, PlainProgress, open_progress
from tests.build import overrides_of
from tests.studies.plan import make_plan
from workflows.trials import shares_search, study_cpus, trial_request


def log_step(run: PlannedRun, **metrics: float) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({name.replace("__", "/"): value for name, value in metrics.items()}) + "\n")


def terminal(height: int = 30) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=110, height=height)


def drawn(view: LiveProgress) -> list[list[str]]:
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
    view = LiveProgress(plan, {first.name}, terminal())
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


def test_a_small_terminal_shows_what_runs(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    view = LiveProgress(plan, set(), terminal(height=8))  # room for three rows
    view.started(plan.runs[-1])
    assert [line[0] for line in drawn(view)[1:4]] == ["grpo", "grpo", "calibadv-half"]


def test_log_lines_pass_through_the_live_table_and_logging_is_restored(tmp_path: Path) -> None:
    console, root, own = terminal(), logging.getLogger(), logging.StreamHandler(io.StringIO())
    root.addHandler(own)
    try:
        with LiveProgress(make_plan(tmp_path), set(), console):
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
    view = PlainProgress(plan)
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
    assert isinstance(open_progress(plan, set(), Console(file=io.StringIO())), PlainProgress)
    assert isinstance(open_progress(plan, set(), terminal()), LiveProgress)
    monkeypatch.setenv("CI", "1")
    assert isinstance(open_progress(plan, set(), terminal()), PlainProgress)


def test_a_trial_reserves_its_process_its_learners_and_its_engines() -> None:
    def request(*overrides: str) -> list[dict[str, float]]:
        bundles: list[dict[str, float]] = trial_request(load_config(None, overrides_of(*overrides))).bundles
        return bundles

    two_engines, on_cpus = "--rollout.engines=2", "--cluster.gpus_per_engine=0"
    # All on CPUs, the learner in the trial's process; then a learner with a GPU.
    assert request(two_engines, on_cpus) == [{"CPU": 1}] * 3
    assert request("--learner.learners=1", "--learner.gpus_per_learner=1", two_engines, on_cpus) == [
        {"CPU": 1},
        {"CPU": 1, "GPU": 1},
        {"CPU": 1},
        {"CPU": 1},
    ]
    # Two learners and two engines of two ranks each.
    apart = ["--learner.learners=2", "--learner.gpus_per_learner=1", "--rollout.tensor_parallel=2", two_engines]
    assert request(*apart, "--cluster.cpus_per_engine=4") == [
        {"CPU": 1},
        *[{"CPU": 1, "GPU": 1}] * 2,
        *[{"CPU": 4, "GPU": 2}] * 2,
    ]
    # Roles are asked for as well, and an engine that asks for nothing has no bundle.
    roles = ["--cluster.address=auto", "--cluster.engines_on=engine", "--cluster.learners_on=learner"]
    assert request(*apart, *roles) == [
        {"CPU": 1},
        *[{"CPU": 1, "GPU": 1, "learner": 0.001}] * 2,
        *[{"CPU": 1, "GPU": 2, "engine": 0.001}] * 2,
    ]
    assert request(two_engines, on_cpus, "--cluster.cpus_per_engine=0") == [{"CPU": 1}]
    # On one GPU, each learner with its engine.
    shares = ["--learner.gpus_per_learner=0.4", "--cluster.gpus_per_engine=0.6", "--learner.learners=2"]
    pair = {"CPU": 2, "GPU": 1}
    assert request("--rollout.placement=colocated", two_engines, *shares) == [{"CPU": 1}, pair, pair]


def test_a_cluster_has_room_for_the_largest_runs_at_once() -> None:
    # Engines, half a CPU for search, learners, 2 for Serve and Ray Data, 1 for the trial.
    small, large = (load_config(None, {"rollout.engines": n, "learner.learners": 1}) for n in (1, 4))
    assert study_cpus([small, large, small], concurrent=1) == 4 + 0.5 + 1 + 2 + 1
    assert study_cpus([small, large, small], concurrent=2) == 8.5 + 5.5
    assert study_cpus([small], concurrent=3) == 5.5


def test_runs_share_the_search_app_when_they_search_alike() -> None:
    shared = load_config(None, {})
    assert shares_search(load_config(None, {"method.name": "grpo", "run.seed": 3}), shared)
    assert not shares_search(load_config(None, {"search.top_k": 5}), shared)
    assert not shares_search(load_config(None, {"data.corpus": "other.jsonl"}), shared)
