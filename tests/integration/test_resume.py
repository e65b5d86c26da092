"""A run that is killed and goes on is, bit for bit, the run that was never killed.

Whole runs of six steps through every real part, with the torch engine in fp32 weights. A second attempt is made of new
processes, so that nothing but the checkpoint can carry anything over; and the steps before the kill are made a second
time too, so that the same run twice gives the same rollouts and the same metrics.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from mlflow import MlflowClient

from calibadv.pocket import write_pocket_world
from tests.integration.commands import ended, killed_on_error, start, wait_for, without_seconds
from tests.integration.test_training import CLOCKED, Place, lines, weights
from tests.integration.test_training import place as place

pytestmark = pytest.mark.integration

STEPS = 6
SIX = {"run__steps": str(STEPS), "data__test_questions": "4", "checkpoint__keep_last": "1"}
WATCHED = {
    **SIX,
    "checkpoint__every": "3",
    "sentinel__action": "rollback",
    "sentinel__snapshot_every": "2",
    "sentinel__baseline_steps": "1",
}
# `train.py` with a learner that is killed, once in all, in the middle of the fifth step: in its second mini-batch.
DIES = """
import os, signal, sys
from pathlib import Path
import calibadv.rllib.config
from calibadv.rllib.learner import PolicyLearner
from workflows.train import cli

KILLED = Path(sys.argv.pop(1))

class Dies(PolicyLearner):
    def _update_minibatch(self, *arguments, **options):
        if self._updates_done == 9 and not KILLED.exists():
            KILLED.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super()._update_minibatch(*arguments, **options)

calibadv.rllib.config.PolicyLearner = Dies
sys.exit(cli())
"""


def attempt(
    place: Place, name: str, until: Callable[[Path], bool], number: signal.Signals, *flags: str, **more: str
) -> str:
    """Starts a run and sends its driver the signal once `until`; its output."""
    process = place.start(name, *flags, **more)
    folder = place.runs / name
    with killed_on_error(process):
        wait_for(lambda: until(folder), process, "the moment of the signal")
        started = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, number)
        code, output = ended(process)
        _, alive = psutil.wait_procs(started, timeout=120)
    assert alive == []
    assert code == (-9 if number is signal.SIGKILL else os.EX_TEMPFAIL), output
    return output


def checkpoint_of(step: int) -> Callable[[Path], bool]:
    return lambda folder: (folder / "checkpoints" / f"step-{step:06}" / "manifest.json").exists()


def steps_made(number: int) -> Callable[[Path], bool]:
    return lambda folder: len(lines(folder / "metrics.jsonl")) > number


def measured(folder: Path) -> list[dict[str, float]]:
    rows = lines(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith(CLOCKED)} for row in rows]


def assert_same_run(resumed: Path, straight: Path) -> None:
    """Weights, trajectories with their log-probs' consequences, metrics, answers and figures."""
    records = lines(straight / "rollouts.jsonl")
    assert {record["step"] for record in records} == set(range(STEPS))
    assert without_seconds(lines(resumed / "rollouts.jsonl")) == without_seconds(records)
    assert measured(resumed) == measured(straight)
    assert lines(resumed / "predictions.jsonl") == lines(straight / "predictions.jsonl")
    one, other = weights(resumed / "model"), weights(straight / "model")
    assert [name for name in other if not torch.equal(one[name], other[name])] == []
    clocked = ("wall_s", "time_split", "mlflow_run_id")
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (resumed, straight)]
    assert [{k: v for k, v in s.items() if k not in clocked} for s in summaries[:1]] == [
        {k: v for k, v in s.items() if k not in clocked} for s in summaries[1:]
    ]


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


@pytest.fixture(scope="module")
def straight(place: Place) -> Path:
    """The folder of a run of six steps that nothing happened to."""
    code, output = place.run("straight", **WATCHED)
    assert code == 0, output
    return place.runs / "straight"


def test_three_steps_a_kill_and_three_more_are_six_steps(place: Place, straight: Path) -> None:
    attempt(place, "killed", checkpoint_of(3), signal.SIGKILL, **WATCHED)
    code, output = place.run("killed", "--resume", **{**WATCHED, "run__seed": "4"})
    assert code == 2, output
    assert "cannot go on from step 3: run.seed was 3, now 4" in output
    code, output = place.run("killed", "--resume", **WATCHED)
    assert code == 0, output
    assert "going on from step 3" in output
    assert_same_run(place.runs / "killed", straight)
    assert_logged_once(place.runs / "killed")

    code, output = place.run("killed", "--resume", **WATCHED)
    assert (code, "there is nothing to go on with" in output) == (0, True), output


def test_a_run_whose_learner_is_killed_in_an_update_is_the_run_that_was_never_hurt(
    place: Place, straight: Path, tmp_path: Path
) -> None:
    script = tmp_path / "dies.py"
    script.write_text(DIES, encoding="utf-8")
    arguments = place.arguments("hurt", **WATCHED, learner__learners="1")
    code, output = ended(start(script, str(tmp_path / "killed"), *arguments, cwd=place.runs.parent, ray=place.ray))
    assert code == 0, output
    assert "learner 0 was lost" in output
    assert "the run starts again by itself, restart 1 of 3" in output
    assert "made again: step 4 and what of a step was under way, from the checkpoint of step 3" in output
    (restart,) = lines(place.runs / "hurt" / "restarts.jsonl")
    assert "learner 0 was lost" in restart["why"]
    summary = place.runs / "hurt" / "summary.json"
    values = json.loads(summary.read_text())
    assert values["restarts"] == 1
    summary.write_text(json.dumps(values | {"restarts": 0}))
    assert_same_run(place.runs / "hurt", straight)


def test_killed_and_preempted_across_the_ends_of_epochs_it_is_the_same_run(place: Place, tmp_path: Path) -> None:
    # Ten questions, four a step: an epoch ends in the third step and after the fifth. A critic has its own optimizer.
    world = write_pocket_world(tmp_path / "pocket")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(world.train.read_text(encoding="utf-8").splitlines(keepends=True)[:10]), encoding="utf-8")
    critic: dict[str, Any] = {"method__name": "ppo", "method__params__critic": "head"}
    # What other methods' recipes have: the policy warms up after the critic's first step, to step 3, over two passes.
    recipe = {"learner__critic_only_steps": "1", "learner__warmup_steps": "2", "learner__critic_warmup_steps": "3"}
    recipe |= {"learner__passes": "2", "rollout__top_p": "0.95"}
    options = {**SIX, **critic, **recipe, "data__train": str(few), "checkpoint__every": "2"}
    code, output = place.run("epochs", **options)
    assert code == 0, output

    attempt(place, "cut", checkpoint_of(2), signal.SIGKILL, **options)
    rarely = {**options, "checkpoint__every": "50"}
    output = attempt(place, "cut", steps_made(4), signal.SIGTERM, "--resume", **rarely)
    assert "is saved: the same command with --resume goes on there" in output
    code, output = place.run("cut", "--resume", **options)
    assert code == 0, output
    assert_same_run(place.runs / "cut", place.runs / "epochs")
    assert_logged_once(place.runs / "cut")
