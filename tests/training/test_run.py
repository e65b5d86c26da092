"""The loop around a scripted algorithm: what is written down and saved, whenever a run is interrupted or fails."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calibadv.checkpoints.identity import Identity
from calibadv.checkpoints.storage import Kind
from calibadv.config import Config
from calibadv.methods import make_method
from calibadv.pocket import policy_path
from calibadv.rllib.env_runner import StepSample
from calibadv.rllib.learner_state import CheckpointFailed
from calibadv.tracking.run_folder import RunFolder
from calibadv.training.checkpoints import Checkpoints, Snapshots
from calibadv.training.inputs import Inputs
from calibadv.training.readiness import Unready
from calibadv.training.records import Records
from calibadv.training.resume import resume_run, storage_of
from calibadv.training.run import TrainingRun
from calibadv.training.signals import Interruption, Preempted
from calibadv.types import Group
from calibadv.views.plain import PlainView
from tests.build import configured, group, trajectory
from tests.training.fake_algorithm import FakeAlgorithm
from tests.training.told import Told

STEPS = 5
GROUP = group(trajectory(1.0, [3, 2], [["a"]]), trajectory(0.0, [2, 2], [["b"]]))
METHOD = make_method("calibadv", {})
LEARNED = {"learner/lr": 1.0, "learner/skipped_updates": 0.0, "sync/logprob_diff_mean": 0.0}
Script = dict[tuple[str, int], Callable[["Scripted"], None]]


class Scripted(FakeAlgorithm):
    """Makes steps; at (moment, version) of the script something happens."""

    def __init__(self, version: int, script: Script) -> None:
        super().__init__(version)
        self.script, self.between_steps = script, True
        self.sample = StepSample(groups=[GROUP], sampled=[0], engine_rows=Counter({"e": 1}))
        self.answers = [GROUP]
        self.credit = {GROUP.question.id: METHOD.advantages(GROUP)}
        self.clipped: Counter[int] = Counter({7: 1})
        self.seconds: dict[str, float] = {}
        self.inspect: Any = None
        self.uninterrupted: Any = None

    def at(self, moment: str) -> None:
        self.script.pop((moment, self.version), lambda _: None)(self)

    def train(self) -> None:
        self.at("rollout")
        with self.uninterrupted():
            self.between_steps = False
            self.at("learn")
            self.weights = self.version + 1
            self.inspect(LEARNED)
            self.version += 1
            self.between_steps = True
        self.at("publish")

    def evaluate_greedy(self, first: int = 0, look: Callable[[StepSample], None] = lambda _: None) -> StepSample:
        self.at("evaluate")
        look(StepSample(groups=self.answers[:first]))
        return StepSample(groups=self.answers)

    def logprob_diff(self, _: Any) -> dict[str, float]:
        return {"eval/logprob_diff_mean": 0.0}

    def save_model(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)


def questions_file(folder: Path) -> Path:
    path = folder / "train.jsonl"
    path.write_text('{"id": "1", "question": "who?", "golden_answers": ["Ada"]}\n', encoding="utf-8")
    return path


def no_plots(*_: object) -> list[Path]:
    """For all but the tests of plots: a second of drawing a run."""
    return []


def no_overview(_: object, folder: Path) -> Path:
    """The same, of the figure that is drawn at every evaluation."""
    folder.mkdir(exist_ok=True)
    (folder / "overview.png").touch()
    return folder / "overview.png"


def no_report(folder: Path) -> Path:
    """For all but the tests of reports."""
    return folder / "report.html"


def settings(*more: str) -> Config:
    small = [f"--run.steps={STEPS}", "--evaluation.every=2", "--checkpoint.keep_best=false", "--checkpoint.every=4"]
    return configured(*small, *more)


@pytest.fixture
def attempt(tmp_path: Path) -> Callable[..., FakeAlgorithm]:
    """Makes, or goes on with, the run in a folder; the algorithm as it was at the end."""

    def call(
        name: str,
        script: Script | None = None,
        *more: str,
        resume: bool = False,
        report: Callable[[Path], Path] = no_report,
        **more_of_run: Any,
    ) -> FakeAlgorithm:
        config = settings(*more)
        identity = Identity(config.flat(), {})
        inputs = Inputs(questions_file(tmp_path), Path(), Path("corpus.jsonl"), policy_path(), METHOD, (), (), {}, {})
        with RunFolder(tmp_path / name, resume=resume) as folder, Interruption().installed() as interruption:
            storage = storage_of(config, folder.path)
            storage.prepare()
            kept = Checkpoints(config.checkpoint, identity, folder, Snapshots(storage))
            resumed = resume_run(config, identity, storage, folder) if resume else None
            if resumed is not None:
                kept.go_on(resumed.progress, resumed.named)
            algorithm = Scripted(resumed.progress.version if resumed else 0, script or {})

            @contextmanager
            def started(*_: Any) -> Iterator[Any]:
                yield algorithm

            call.told = Told()  # type: ignore[attr-defined]
            records = Records(config, inputs, folder, call.told, PlainView(STEPS), no_overview, no_plots, report)
            progress = resumed.progress if resumed else None
            run = TrainingRun(config, inputs, records, kept, started, interruption, resumed=progress, **more_of_run)
            try:
                run.execute()
            finally:
                call.saved = storage.versions(Kind.CHECKPOINT)  # type: ignore[attr-defined]
        return algorithm

    return call


def send(*numbers: signal.Signals) -> Callable[[Any], None]:
    def act(_: Any) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return act


def fail(_: Any) -> None:
    raise RuntimeError("it broke")


def lines(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    clocked = ("time/", "rollout/tokens_per_s", "written_ms")
    return [{k: v for k, v in row.items() if not k.startswith(clocked)} for row in rows]


def merged(folder: Path) -> list[dict[str, Any]]:
    """Lines by step: an evaluation that was made later has a line of its own."""
    by_step: dict[int, dict[str, Any]] = {}
    for row in lines(folder):
        by_step.setdefault(row["step"], {}).update(row)
    return [by_step[step] for step in sorted(by_step)]


def test_a_run_evaluates_before_between_and_after_and_saves_when_due(attempt: Any, tmp_path: Path) -> None:
    attempt("a")
    assert [row["step"] for row in lines(tmp_path / "a") if "eval/f1" in row] == [0, 2, 4, 5]
    assert [row["step"] for row in lines(tmp_path / "a", "rollouts.jsonl")] == [
        s for s in range(STEPS) for _ in range(2)
    ]
    assert attempt.saved == [4, 5]
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert attempt.told.metrics[STEPS]["final/f1"] == summary["f1_after"]
    assert [step for _, step in attempt.told.images] == [2, 4, 5]
    assert attempt.told.artifacts == [
        ("clipped_tokens.csv", None),
        ("model", "model"),
        ("summary.json", None),
        ("predictions.jsonl", None),
        ("report.html", None),
    ]
    assert lines(tmp_path / "a", "first_predictions.jsonl") == lines(tmp_path / "a", "predictions.jsonl")
    assert "| held-out questions | before | after | change |" in attempt.told.notes[-1]


def test_the_best_is_the_best_on_the_questions_that_every_evaluation_asks(attempt: Any) -> None:
    right, wrong = (group(trajectory(f1, [2])) for f1 in (1.0, 0.0))
    # Version 2: 1 of 2. Version 5: 2 of 2, and 2 of 5 where the last evaluation asks more.
    script = {("evaluate", 2): answers(right, wrong), ("evaluate", 5): answers(right, right, wrong, wrong, wrong)}
    best = ("--checkpoint.keep_best=true", "--checkpoint.every=50", "--checkpoint.keep_last=1")
    attempt("a", script, "--evaluation.questions=2", *best)
    assert attempt.saved == [5]


def test_the_time_that_is_left_counts_steps_without_their_evaluations(
    attempt: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 0.0

    def learn(_: Scripted) -> None:
        nonlocal now_s
        now_s += 10.0

    def evaluate(algorithm: Scripted) -> None:
        nonlocal now_s
        now_s += 100.0
        algorithm.seconds["eval"] = 100.0

    clock = SimpleNamespace(monotonic=lambda: now_s)
    monkeypatch.setattr("calibadv.training.run.time", clock)
    with caplog.at_level(logging.INFO):
        attempt("a", {**{("learn", v): learn for v in range(STEPS)}, **{("evaluate", v): evaluate for v in (2, 4, 5)}})
    assert re.findall(r"(\S+) left", caplog.text) == ["0:40", "0:30", "0:20", "0:10", "0:00"]


def test_a_clock_that_is_set_back_takes_no_time_from_a_run(
    attempt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=partial(next, count(60.0)), time=lambda: -3600.0)
    monkeypatch.setattr("calibadv.training.run.time", clock)
    attempt("a", begun_s=10.0)
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["wall_s"] >= 50


def test_the_time_of_earlier_attempts_and_what_they_clipped_count_too(attempt: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt("a", {("rollout", 3): send(signal.SIGTERM)}, begun_s=time.monotonic() - 1000)
    attempt("a", resume=True)
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["wall_s"] >= 1000
    with (tmp_path / "a" / "clipped_tokens.csv").open(encoding="utf-8") as table:
        assert [(row["id"], row["count"]) for row in csv.DictReader(table)] == [("7", str(STEPS))]


def test_an_evaluated_version_that_is_saved_is_a_model_and_says_what_it_is_kept_as(
    attempt: Any, tmp_path: Path
) -> None:
    attempt("a", None, "--checkpoint.every=2", "--checkpoint.keep_last=1", "--checkpoint.keep_best=true")
    told = attempt.told
    assert sorted(told.versions) == [2, 4, 5]  # 2 is the best: all have the same F1
    assert all("eval/f1" in figures for figures in told.versions.values())
    kept_as = {step: tags["checkpoint"] for step, tags in told.version_tags.items()}
    assert kept_as == {2: "best", 4: "removed", 5: "kept"}
    assert told.version_tags[5]["final"] == "true"
    assert told.version_tags[2]["policy"] == str(tmp_path / "a" / "checkpoints" / "step-000002" / "model")
    assert Path(told.version_tags[2]["policy"]).is_dir()


def test_without_checkpoints_the_final_model_is_the_only_one(attempt: Any) -> None:
    attempt("a", None, "--checkpoint.every=0")
    assert attempt.told.version_tags == {STEPS: {"final": "true"}}


def test_a_report_that_cannot_be_written_takes_nothing_from_the_run(
    attempt: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Path) -> Path:
        raise RuntimeError("a method of mine")

    attempt("a", report=broken)
    assert (tmp_path / "a" / "summary.json").is_file()
    assert f"(a method of mine): calibadv report {tmp_path / 'a'} tries again" in caplog.text
    attempt("b", None, "--tracking.report=false", report=broken)
    assert ("report.html", None) not in attempt.told.artifacts
    assert caplog.text.count("a method of mine") == 1


@pytest.mark.parametrize(
    ("moment", "version", "saved"),
    [
        ("rollout", 3, 3),  # the rollouts of step 3 are dropped
        ("learn", 2, 3),  # the update is finished first
        ("publish", 3, 3),
        ("evaluate", 2, 2),  # the step is saved, its evaluation is made when the run goes on
        ("evaluate", 5, 5),  # the last one
        ("rollout", 4, 4),  # just saved, because it was due
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whenever_it_is_interrupted_the_last_step_is_saved_and_the_run_goes_on_from_it(
    attempt: Any, tmp_path: Path, moment: str, version: int, saved: int, number: signal.Signals
) -> None:
    attempt("straight")
    with pytest.raises(KeyboardInterrupt) as caught:
        attempt("cut", {(moment, version): send(number)})
    assert isinstance(caught.value, Preempted) == (number is signal.SIGTERM)
    assert max(attempt.saved) == saved
    algorithm = attempt("cut", resume=True)
    assert (algorithm.version, algorithm.weights) == (STEPS, STEPS)
    assert merged(tmp_path / "cut") == merged(tmp_path / "straight")
    for name in ("rollouts.jsonl", "predictions.jsonl"):
        assert lines(tmp_path / "cut", name) == lines(tmp_path / "straight", name)
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("cut", "straight")]
    assert summaries[0]["f1_after"] == summaries[1]["f1_after"]


def test_a_checkpoint_stays_as_it_is_while_its_evaluation_is_made_later(attempt: Any, tmp_path: Path, uri: str) -> None:
    more = (f"--checkpoint.uri={uri}", "--run.name=cut", "--checkpoint.keep_best=true", "--checkpoint.keep_last=1")
    storage = storage_of(settings(*more), tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        attempt("cut", {("evaluate", 2): send(signal.SIGTERM)}, *more)
    before, _ = storage.newest()
    assert before is not None
    with pytest.raises(RuntimeError, match="it broke"):
        attempt("cut", {("rollout", 2): fail}, *more, resume=True)
    assert storage.newest() == (before, [])
    assert attempt.told.version_tags[2]["checkpoint"] == "best"
    attempt("cut", None, *more, resume=True)  # evaluates again
    assert attempt.saved == [2, 5]  # the first is the best: all have the same F1
    attempt("straight", None, *more[1:])
    assert merged(tmp_path / "cut") == merged(tmp_path / "straight")


def test_a_second_signal_in_an_update_drops_it(attempt: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt("cut", {("learn", 4): send(signal.SIGINT, signal.SIGINT)})
    assert attempt.saved == [4]
    assert "step 4 is saved" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        attempt("early", {("learn", 2): send(signal.SIGINT, signal.SIGINT)})
    assert attempt.saved == []
    assert "no checkpoint was written: there is nothing to go on from" in caplog.text


def test_an_error_between_updates_loses_no_step_and_one_in_an_update_loses_that_update(
    attempt: Any, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="it broke"):
        attempt("search-down", {("rollout", 3): fail})
    assert attempt.saved == [3]
    with pytest.raises(RuntimeError, match="it broke"):
        attempt("learner-dead", {("learn", 4): fail})
    assert attempt.saved == [4]
    assert [row["step"] for row in lines(tmp_path / "learner-dead")] == [0, 1, 2, 3, 4]


def test_learners_that_ended_of_an_error_are_asked_for_no_model(
    attempt: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def end(algorithm: Scripted) -> None:
        algorithm.learner_group = SimpleNamespace(lost=lambda: None, gone=True)
        fail(algorithm)

    with pytest.raises(RuntimeError, match="it broke"):
        attempt("a", {("learn", 2): end})
    assert not (tmp_path / "a" / "model").exists()
    assert "not everything could be written" not in caplog.text


def full(algorithm: Scripted) -> None:
    algorithm.disk_full = True


def free(algorithm: Scripted) -> None:
    algorithm.disk_full = False


def test_a_disk_that_was_full_for_a_while_costs_nothing_but_a_checkpoint(attempt: Any) -> None:
    attempt("a", {("rollout", 3): full, ("rollout", 4): free})
    assert attempt.saved == [5]


def test_a_disk_that_is_still_full_at_the_end_is_an_error_with_all_else_written(attempt: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointFailed, match=r"the run has finished and its model is in .*No space left on device"):
        attempt("a", {("rollout", 1): full})
    assert attempt.saved == []
    assert (tmp_path / "a" / "summary.json").exists()


def test_a_run_without_checkpoints_saves_none_at_all(attempt: Any) -> None:
    attempt("a", None, "--checkpoint.every=0")
    assert attempt.saved == []
    with pytest.raises(KeyboardInterrupt):
        attempt("b", {("rollout", 3): send(signal.SIGTERM)}, "--checkpoint.every=0")
    assert attempt.saved == []


def test_the_best_evaluated_version_is_saved_although_none_is_due(attempt: Any) -> None:
    attempt("a", None, "--checkpoint.keep_best=true", "--checkpoint.every=50")
    assert attempt.saved == [2, 5]  # 4 was no better than 2


# ---- a policy that cannot learn --------------------------------------------------------------------------------------

MUTE = group(*(trajectory(0.0, [2], format_reward=0.0, texts=["As an AI"]) for _ in range(2)))


def answers(*groups: Group) -> Callable[[Scripted], None]:
    def act(algorithm: Scripted) -> None:
        algorithm.answers = list(groups)

    return act


def samples(*groups: Group) -> Callable[[Scripted], None]:
    def act(algorithm: Scripted) -> None:
        algorithm.sample = StepSample(groups=list(groups), sampled=[0], engine_rows=Counter({"e": 1}))
        algorithm.credit = {each.question.id: METHOD.advantages(each) for each in groups}

    return act


def numbered(shape: Group, count: int) -> list[Group]:
    return [Group(replace(shape.question, id=f"test/{n}"), shape.trajectories) for n in range(count)]


def greedy(groups: Sequence[Group]) -> list[Group]:
    return [Group(each.question, each.trajectories[:1]) for each in groups]


def test_a_policy_that_never_writes_the_format_is_stopped_by_the_first_answers(attempt: Any, tmp_path: Path) -> None:
    with pytest.raises(Unready, match="does not write the format: 0 of 64 rollouts are well-formed") as caught:
        attempt("a", {("evaluate", 0): answers(*greedy(numbered(MUTE, 70)))})
    assert "\n" not in str(caught.value)
    assert "one began with 'As an AI'. Teach it first: " in str(caught.value)
    assert "warm_start gold --config runs/calibadv-seed0/config.toml" in str(caught.value)
    assert attempt.saved == []
    assert not (tmp_path / "a" / "metrics.jsonl").exists()  # so that the same command with another model may use it
    assert len(lines(tmp_path / "a", "predictions.jsonl")) == 64


def test_a_whole_evaluation_below_the_floor_stops_it_too_and_is_written_down(attempt: Any, tmp_path: Path) -> None:
    with pytest.raises(Unready, match="1 of 71 rollouts"):
        attempt("a", {("evaluate", 0): answers(*greedy([GROUP, *numbered(MUTE, 70)]))})
    assert [row["step"] for row in lines(tmp_path / "a")] == [0]


def test_a_first_step_without_any_advantage_stops_it_with_its_rollouts_written(
    attempt: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Unready, match="no group of the first step has an advantage: the policy does not write"):
        attempt("a", {("rollout", 0): samples(MUTE)}, "--checkpoint.every=1")
    assert attempt.saved == []  # nothing was learned: --resume would go on with what cannot learn
    assert "--resume" not in caplog.text
    assert len(lines(tmp_path / "a", "rollouts.jsonl")) == 2


def test_a_later_step_without_any_advantage_stops_nothing(attempt: Any) -> None:
    assert attempt("a", {("rollout", 1): samples(MUTE)}).version == STEPS


def test_told_to_warn_it_trains_on_and_told_nothing_it_says_nothing(
    attempt: Any, caplog: pytest.LogCaptureFixture
) -> None:
    script = {("evaluate", 0): answers(MUTE), ("rollout", 0): samples(MUTE), ("evaluate", 2): answers(GROUP)}
    assert attempt("a", dict(script), "--sentinel.unready=warn").version == STEPS
    assert caplog.text.count("it will learn nothing: ") == 3  # the first answers, all of them, the first step
    caplog.clear()
    assert attempt("b", dict(script), "--sentinel.unready=off").version == STEPS
    assert "learn nothing" not in caplog.text


def test_a_run_that_goes_on_is_not_judged_again(attempt: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt("a", {("rollout", 2): send(signal.SIGTERM)})
    algorithm = attempt("a", {("evaluate", 2): answers(MUTE), ("rollout", 2): samples(MUTE)}, resume=True)
    assert algorithm.version == STEPS
