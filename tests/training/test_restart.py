"""A run that loses a process starts again by itself: for what, how often, from where, and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    OwnerDiedError,
    RayActorError,
    RayTaskError,
)

from calibadv.checkpoints.storage import Storage
from calibadv.config import Config
from calibadv.pocket import policy_path
from calibadv.rllib.lost import LearnersLost
from calibadv.rollout.protocols import SearchFailed
from calibadv.tracking.target import Target
from calibadv.training.inputs import Inputs
from calibadv.training.parts import Parts
from calibadv.training.readiness import Unready
from calibadv.training.restart import Restart, recoverable, with_restarts
from calibadv.training.signals import Interruption
from calibadv.views.plain import PlainView
from tests.build import configured
from tests.training.test_run import (
    METHOD,
    MUTE,
    STEPS,
    Script,
    Scripted,
    answers,
    lines,
    merged,
    no_overview,
    no_plots,
    no_report,
    questions_file,
)
from tests.training.told import Told
from workflows import one_run

GONE = LearnersLost("learner 0 was lost")


@pytest.mark.parametrize(
    "error",
    [
        GONE,
        RayActorError(),
        ActorDiedError(),
        ActorUnavailableError("it is gone", b"a" * 16),
        NodeDiedError("a node"),
        ActorUnschedulableError("a node"),
    ],
)
def test_a_restart_recovers_from_what_is_lost(error: Exception) -> None:
    assert recoverable(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("11 engines died in this run"),
        ActorDiedError(RayTaskError("__init__", "it cannot be built", ValueError("no such model"))),
        RayTaskError("update", "a bug", KeyError("x")),
        SearchFailed("down"),
        OutOfMemoryError("too much"),
        OSError(28, "No space left on device"),
        ValueError("wrong input"),
        KeyboardInterrupt(),
    ],
)
def test_a_restart_recovers_from_nothing_that_would_happen_again(error: BaseException) -> None:
    assert not recoverable(error)


def test_an_error_of_a_task_counts_by_what_caused_it() -> None:
    cause = ActorDiedError()
    assert recoverable(RayTaskError("publish", "the coordinator is gone", cause).as_instanceof_cause())


def test_lost_objects_count_by_their_lost_owner() -> None:
    assert recoverable(OwnerDiedError("ab" * 28, ("", 0), "engine.py:1"))


def test_restarts_are_counted_said_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Restart] = []

    def dies(times: int) -> Callable[[Restart], str]:
        def make(restart: Restart) -> str:
            asked.append(restart)
            if restart.number < times:
                raise GONE
            return "done"

        return make

    assert with_restarts(dies(2), max_restarts=2) == "done"
    assert asked == [Restart(), Restart(1, "learner 0 was lost"), Restart(2, "learner 0 was lost")]
    assert "learner 0 was lost: the run starts again by itself, restart 2 of 2" in caplog.text
    for allowed, said in ((1, "max_restarts = 1 restarts are used up"), (0, "max_restarts = 0 allows no restart")):
        asked.clear()
        with pytest.raises(LearnersLost, match="learner 0 was lost") as caught:
            with_restarts(dies(2), max_restarts=allowed)
        assert said in caught.value.__notes__[-1]
        assert len(asked) == allowed + 1


AGAIN = """
import os, signal, sys, time
from calibadv.training.signals import Interruption, Preempted
from calibadv.training.readiness import Unready
from calibadv.training.restart import Restart, start_again, started_again

restart = started_again()
assert not any(name.startswith("CALIBADV") for name in os.environ)
print(restart.number, restart.why, sys.argv[1:], os.getpid() == int(sys.argv[2] if restart.number else os.getpid()))
if restart.number < 2:
    sys.argv.append("changed")
    sys.orig_argv[2:] = ["--resume", str(os.getpid())]
    if restart.number == 1:
        os.environ["SIGNALLED"] = "1"
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
    start_again(Restart(restart.number + 1, "lost – it is"))
try:
    with Interruption().installed():
        print("not told")
except Preempted:
    print("told")
"""


def test_a_process_starts_again_as_itself_with_its_arguments_and_hears_what_was_sent_meanwhile(tmp_path: Path) -> None:
    script = tmp_path / "again.py"
    script.write_text(AGAIN, encoding="utf-8")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": root, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    first, second, third, told = done.stdout.splitlines()
    assert first == "0  [] True"
    assert second.startswith("1 lost – it is ['--resume', ")
    assert third.startswith("2 lost – it is ['--resume', ")
    assert (second[-4:], third[-4:], told) == ("True", "True", "told")


def lose(algorithm: Any) -> None:
    algorithm.learner_group = Gone()
    raise GONE


class Gone:
    gone = True

    def lost(self) -> LearnersLost:
        return GONE


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """`one_run.train` over scripted algorithms, a script for each attempt; its exit code."""

    def call(name: str, *scripts: Script, more: tuple[str, ...] = (), resume: bool = False) -> int:
        config = settings(tmp_path, name, *more)
        call.told, call.anew = Told(), 0  # type: ignore[attr-defined]
        parts = scripted(tmp_path, scripts, call.told)  # type: ignore[attr-defined]
        end = one_run.train(config, resume=resume, restarts=True, parts=parts)
        while isinstance(end, Restart):
            call.anew += 1  # type: ignore[attr-defined]
            end = one_run.train(config, resume=resume, restart=end, restarts=True, parts=parts)
        return end

    return call


def scripted(folder: Path, scripts: Sequence[Script], told: Told) -> Parts:
    """The parts of a run whose algorithm follows a script in each attempt, and none when they are used up."""
    waiting = list(scripts)
    inputs = Inputs(questions_file(folder), Path(), Path(), policy_path(), METHOD, (), (), {}, {})

    @contextmanager
    def started(_: Any, inputs: Inputs, *__: Any) -> Iterator[Any]:
        yield Scripted(inputs.start.version if inputs.start else 0, waiting.pop(0) if waiting else {})

    return Parts(started, lambda _: inputs, lambda *_: told, no_overview, no_plots, PlainView, no_report)


def settings(folder: Path, name: str, *more: str) -> Config:
    small = [f"--run.steps={STEPS}", "--evaluation.every=2", "--checkpoint.keep_best=false", "--checkpoint.every=2"]
    return configured(*small, f"--run.folder={folder}", f"--run.name={name}", *more)


def summary(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return values


def test_a_run_that_loses_its_learner_twice_is_the_run_that_never_did(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("straight") == 0
    assert run("hurt", {("learn", 3): lose}, {("rollout", 4): lose}) == 0
    assert merged(tmp_path / "hurt") == merged(tmp_path / "straight")
    assert lines(tmp_path / "hurt", "rollouts.jsonl") == lines(tmp_path / "straight", "rollouts.jsonl")
    assert [line["why"] for line in lines(tmp_path / "hurt", "restarts.jsonl")] == ["learner 0 was lost"] * 2
    assert (summary(tmp_path / "hurt")["restarts"], summary(tmp_path / "straight")["restarts"]) == (2, 0)
    assert run.told.tags["restarts"] == "2"
    assert "made again: step 3 and what of a step was under way, from the checkpoint of step 2" in caplog.text
    assert "made again: what of a step was under way, from the checkpoint of step 4" in caplog.text
    assert "--resume" not in caplog.text  # there is nothing for anyone to do


@pytest.mark.parametrize("half", [False, True])
def test_without_a_checkpoint_it_begins_anew_as_the_same_run(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, half: bool
) -> None:
    rarely = "--checkpoint.every=4"
    assert run("straight", more=(rarely,)) == 0

    def lose_it(algorithm: Any) -> None:
        Target("calibadv", "hurt", run_id="its run").write(tmp_path / "hurt")
        if half:  # an object store's, which a killed process left
            (tmp_path / "hurt" / "checkpoints" / "step-000004" / "shared").mkdir(parents=True)
        lose(algorithm)

    assert run("hurt", {("learn", 3): lose_it}, more=(rarely, "--run.overwrite=true")) == 0
    assert Storage(str(tmp_path / "hurt" / "checkpoints")).newest()[0] is not None
    assert merged(tmp_path / "hurt") == merged(tmp_path / "straight")
    target = Target.read(tmp_path / "hurt")
    assert target is not None
    assert target.run_id == "its run"
    assert "made again: steps 1 to 3 and what of a step was under way, from the start" in caplog.text


def test_inside_a_ray_that_stays_up_it_is_begun_again_where_it_is(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(name: str, *scripts: Script) -> int:
        config = settings(tmp_path, name, "--checkpoint.max_restarts=1")
        return one_run.train_run(config, PlainView(STEPS), parts=scripted(tmp_path, scripts, Told())).steps

    with pytest.raises(LearnersLost):
        trial("elsewhere", {("learn", 3): lose})
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    assert trial("hurt", {("learn", 3): lose}) == STEPS
    with pytest.raises(LearnersLost, match="learner 0 was lost") as caught:
        trial("again", {("learn", 3): lose}, {("learn", 3): lose})
    assert "checkpoint.max_restarts = 1 restarts are used up" in caught.value.__notes__[-1]
    assert run("outside", {("learn", 3): lose}) == 0
    assert run.anew == 1
    assert merged(tmp_path / "hurt") == merged(tmp_path / "outside")


def test_once_too_often_it_ends_with_an_exit_code_of_its_own_and_can_be_resumed(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = "--checkpoint.max_restarts=1"
    assert run("hurt", {("learn", 2): lose}, {("learn", 3): lose}, more=(one,)) == 4
    assert "checkpoint.max_restarts = 1 restarts are used up" in caplog.text
    assert "the same command with --resume goes on from step 2" in caplog.text
    assert run("hurt", {("learn", 4): lose}, more=(one,), resume=True) == 0  # a new command, a new count
    assert summary(tmp_path / "hurt")["restarts"] == 2


def test_whatever_fails_because_a_learner_is_gone_is_told_as_that(run: Any, tmp_path: Path) -> None:
    def fail(algorithm: Any) -> None:
        algorithm.learner_group = Gone()
        raise RuntimeError("the weights cannot be fetched")

    assert run("hurt", {("publish", 3): fail}) == 0
    assert [line["why"] for line in lines(tmp_path / "hurt", "restarts.jsonl")] == ["learner 0 was lost"]


def test_what_a_living_learner_holds_is_saved_before_a_restart(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    def lose_the_board(_: Any) -> None:
        raise ActorDiedError

    assert run("hurt", {("publish", 3): lose_the_board}) == 0
    assert "made again: what of a step was under way, from the checkpoint of step 3" in caplog.text


def test_where_nothing_can_start_the_command_again_the_loss_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = scripted(tmp_path, [{("learn", 1): lose}], Told())
    assert one_run.train(settings(tmp_path, "hurt"), parts=parts) == one_run.LOST
    assert "checkpoint.max_restarts = 0 allows no restart: the same command with --resume goes on" in caplog.text


def test_a_signal_that_waited_for_an_update_that_failed_is_not_forgotten(run: Any) -> None:
    def signalled(algorithm: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        lose(algorithm)

    assert run("hurt", {("learn", 3): signalled}) == os.EX_TEMPFAIL


def test_updates_that_were_left_out_are_said(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    def poison(algorithm: Any) -> None:
        inspect = algorithm.inspect
        algorithm.inspect = lambda learned: inspect({**learned, "learner/skipped_updates": 2.0})

    assert run("poisoned", {("learn", 1): poison}) == 0
    assert "step 2: 2 updates had a loss or a gradient that is not finite and were left out" in caplog.text


def test_a_policy_that_cannot_learn_ends_with_an_exit_code_of_its_own_and_is_not_started_again(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("mute", {("evaluate", 0): answers(MUTE)}) == one_run.ENDS[Unready] == 5
    assert run.anew == 0
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "warm_start gold" in said
    assert not (tmp_path / "mute" / "summary.json").exists()


def test_raise_waiting_raises_only_what_waits() -> None:
    Interruption().raise_waiting()
