"""A run that is killed and goes on is, bit for bit, the run that was never killed.

Through every real part, with the torch engine in fp32 weights. A second attempt is made of new processes, so that
nothing but the checkpoint can carry anything over, and the last one within this program, whose Ray knows nothing of
the attempts before; the steps before the kill are made a second time too, so that the same run twice, as a command and
within a program, gives the same rollouts and the same metrics. Each has a ledger of its search's answers, which in the
end are the same. A learner that is killed: test_training.py.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from calibadv.pocket import write_pocket_world
from tests.integration.commands import ended, killed_on_error, wait_for
from tests.integration.runs import SIX, STEPS, Place, assert_same_run, assert_saved, lines

pytestmark = pytest.mark.integration


def attempt(
    place: Place, name: str, until: Callable[[Path], bool], number: signal.Signals, *flags: str, **more: str
) -> tuple[str, list[psutil.Process]]:
    """Starts a run and sends its driver the signal once `until`; its output, and the processes that it had started."""
    process = place.start(name, *flags, **more)
    folder = place.runs / name
    with killed_on_error(process):
        wait_for(lambda: until(folder), process, "the moment of the signal")
        started = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, number)
        code, output = ended(process)
    if number is not signal.SIGKILL:  # after which a Ray takes a minute to see that nobody needs it
        assert psutil.wait_procs(started, timeout=120)[1] == []
    assert code == (-9 if number is signal.SIGKILL else os.EX_TEMPFAIL), output
    return output, started


def checkpoint_of(step: int) -> Callable[[Path], bool]:
    return lambda folder: (folder / "checkpoints" / f"step-{step:06}" / "manifest.json").exists()


def steps_made(number: int) -> Callable[[Path], bool]:
    return lambda folder: len(lines(folder / "metrics.jsonl")) > number


def answers(ledger: Path) -> list[tuple[str, str]]:
    """What was asked and answered, each query once however often a step was made."""
    with closing(sqlite3.connect(ledger)) as file:
        return file.execute("SELECT query, documents FROM answers ORDER BY query").fetchall()


def assert_logged_once(folder: Path) -> None:
    """One MLflow run, in which every step stands once, and every sampled rollout."""
    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    (run,) = client.search_runs(
        [client.get_experiment_by_name("calibadv").experiment_id], f"attributes.run_name = '{folder.name}'"
    )
    assert run.info.status == "FINISHED"
    for metric in ("reward/mean", "learner/lr"):
        assert sorted(m.step for m in client.get_metric_history(run.info.run_id, metric)) == list(range(1, STEPS + 1))
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    assert len(traces) == len(lines(folder / "rollouts.jsonl"))


@pytest.mark.usefixtures("local_ray")
def test_killed_and_preempted_across_the_ends_of_epochs_it_is_the_same_run(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Ten questions, four a step: an epoch ends in the third step and after the fifth. A critic has its own optimizer.
    world = write_pocket_world(tmp_path / "pocket")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(world.train.read_text(encoding="utf-8").splitlines(keepends=True)[:10]), encoding="utf-8")
    critic: dict[str, Any] = {"method__name": "ppo", "method__params__critic": "head"}
    # What other methods' recipes have: the policy warms up after the critic's first step, to step 3, over two passes.
    recipe = {"learner__critic_only_steps": "1", "learner__warmup_steps": "2", "learner__critic_warmup_steps": "3"}
    recipe |= {"learner__passes": "2", "rollout__top_p": "0.95"}
    options = {**SIX, **critic, **recipe, "data__train": str(few), "checkpoint__every": "2"}
    straight = place.trained("epochs", **options, search__ledger=str(tmp_path / "straight.sqlite"))
    options["search__ledger"] = str(tmp_path / "cut.sqlite")

    _, left_behind = attempt(place, "cut", checkpoint_of(2), signal.SIGKILL, **options)
    rarely = {**options, "checkpoint__every": "50"}
    output, _ = attempt(place, "cut", steps_made(4), signal.SIGTERM, "--resume", **rarely)
    assert "going on from step " in output
    assert_saved(place, "cut", output)
    code, said = place.answer("cut", capsys, "--resume", **options, run__seed="4")
    assert code == 2
    assert re.search(r"cannot go on from step [456]: run.seed was 3, now 4", said), said
    code, output = place.answer("cut", capsys, "--resume", **options)
    assert code == 0, output
    assert_same_run(place.runs / "cut", straight)
    assert_logged_once(place.runs / "cut")
    assert answers(tmp_path / "cut.sqlite") == answers(tmp_path / "straight.sqlite")
    code, said = place.answer("cut", capsys, "--resume", **options)
    assert (code, "there is nothing to go on with" in said) == (0, True), said
    assert psutil.wait_procs(left_behind, timeout=120)[1] == []
