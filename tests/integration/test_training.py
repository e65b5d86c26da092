"""`python workflows/train.py` whole: what it leaves behind, that it mends itself, and that it can be stopped.

One run serves most tests, also as what a run that was hurt is compared with.
"""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from pathlib import Path

import psutil
import pytest
import torch
from mlflow import MlflowClient
from transformers import AutoTokenizer

from calibadv.config import load_config
from calibadv.explain.replay import credited, methods_for
from calibadv.tracking.groups import read_groups
from tests.build import overrides_of
from tests.integration.commands import ROOT, ended, killed_on_error, start, wait_for
from tests.integration.runs import STEPS, WATCHED, Place, assert_same_run, assert_saved, lines, weights
from workflows import one_run
from workflows.explain import main as explain

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def finished(local_ray: None, place: Place) -> Path:  # noqa: ARG001
    """The folder of a run of six steps that nothing happened to, made in this process."""
    return place.trained("first", one_run.PARTS, **WATCHED)


# `train.py` with a learner that is killed in the middle of the fifth step: in its second mini-batch. In its second life
# it waits there, until it is told to go on.
DIES = """
import os, signal, sys, time
from pathlib import Path
import calibadv.rllib.config
from calibadv.rllib.learner import PolicyLearner
from workflows.command import run_command
from workflows.train import main

FOLDER = Path(sys.argv.pop(1))

class Dies(PolicyLearner):
    def _update_minibatch(self, *arguments, **options):
        if self._updates_done == 9 and not (FOLDER / "killed").exists():
            (FOLDER / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._updates_done == 9 and not (FOLDER / "again").exists():
            (FOLDER / "again").touch()
            while not (FOLDER / "go").exists():
                time.sleep(0.1)
        super()._update_minibatch(*arguments, **options)

calibadv.rllib.config.PolicyLearner = Dies
sys.exit(run_command(main))
"""


def test_summary_has_every_figure_of_the_run(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    wanted = "method seed steps f1_before f1_after em_before em_after format_after wall_s logprob_diff_mean"
    assert {*wanted.split(), "time_split", "mlflow_run_id"} <= set(summary)
    assert (summary["method"], summary["seed"], summary["steps"], summary["engine"]) == ("calibadv", 3, STEPS, "torch")
    assert set(summary["time_split"]) == {"rollout", "learn", "sync", "eval", "other"}
    assert sum(summary["time_split"].values()) == pytest.approx(1, abs=0.01)
    assert all(0 <= summary[key] <= 1 for key in ("f1_before", "f1_after", "em_before", "em_after", "format_after"))
    assert 0 < summary["logprob_diff_mean"] < 1e-5
    assert (summary["infra_failed"], summary["skipped_updates"], summary["engine_share_max"]) == (0, 0, 1)


def test_metrics_have_a_line_for_the_start_and_one_a_step(finished: Path) -> None:
    start, *steps = lines(finished / "metrics.jsonl")
    assert [start["step"], *(line["step"] for line in steps)] == list(range(STEPS + 1))
    assert start["eval/questions"] == steps[-1]["eval/questions"] == 4
    assert "eval/f1" not in steps[0]
    for line in steps:
        assert line["learner/updates"] == 2  # 4 questions x 3 rollouts in mini-batches of 6
        assert line["learner/skipped_updates"] == 0
        assert line["learner/tokens"] > 0
        assert (line["learner/kept_share"] == 1) or line["rollout/spare_groups"] >= 2
        # Engine and learner hold the same weights at every step: a publication that was lost would show here.
        assert line["sync/logprob_diff_max"] < 1e-4
        assert all(math.isfinite(value) for value in line.values())
    assert any(line["learner/grad_norm"] > 0 for line in steps)
    assert sum(line["rollout/spare_groups"] for line in steps) > 0
    assert all((line["rollout/spare_tokens"] > 0) == (line["rollout/spare_groups"] > 0) for line in steps)
    cosine = [3e-5 + 27e-5 * (1 + math.cos(math.pi * x / 12)) / 2 for x in (1, 3, 5, 7, 9, 11)]  # middles of steps
    assert [line["learner/lr"] for line in steps] == pytest.approx(cosine)


def test_configuration_reloads_as_what_was_run(finished: Path, place: Place) -> None:
    overrides = place.arguments("first", **WATCHED)
    asked = load_config(ROOT / "workflows" / "recipes" / "pocket.toml", overrides_of(*overrides))
    assert load_config(finished / "config.toml") == asked


def test_stored_groups_credited_again_have_the_credit_that_trained(finished: Path) -> None:
    steps = list(read_groups(finished))
    assert [stored.step for stored in steps] == list(range(STEPS))
    trained = [row_S for stored in steps for rows in stored.trained for row_S in rows]
    again = [
        row_S
        for stored in steps
        for columns in credited(stored, methods_for(stored))
        for row_S in columns["calibadv"].credit
    ]
    assert len(trained) == STEPS * 2 * 3
    assert any(value < 0 for row_S in trained for value in row_S)
    for row_S, expected in zip(again, trained, strict=True):
        assert row_S == pytest.approx(expected, abs=1e-6)
    assert explain([str(finished), "--disagree"]) == 0


def test_sampled_rollouts_are_whole_groups_with_their_credit(finished: Path) -> None:
    records = lines(finished / "rollouts.jsonl")
    assert [record["step"] for record in records] == [
        step for step in range(STEPS) for _ in range(6)
    ]  # two groups of three
    assert all(record["policy_version"] == record["step"] for record in records)
    assert [record["index"] for record in records] == [0, 1, 2] * 2 * STEPS
    for record in records:
        assert record["reward"] == record["answer_reward"] * record["format_reward"]
        for turn in record["turns"]:
            assert turn["tokens"] > 0
            assert (turn["advantage"] is None) == (turn["advantage_before"] is None) is False
    searches = [turn for record in records for turn in record["turns"][:-1] if turn["kind"] == "search"]
    assert searches
    assert all(doc["text"] for turn in searches for doc in turn["documents"])


def test_plots_and_the_table_of_clipped_tokens_are_written(finished: Path) -> None:
    plots = {path.name: path.read_bytes()[:8] for path in (finished / "plots").iterdir()}
    assert {"overview.png", "reward.png"} <= set(plots)
    assert set(plots.values()) == {b"\x89PNG\r\n\x1a\n"}
    with (finished / "clipped_tokens.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["id", "token", "count"]


def test_model_opens_and_was_trained(finished: Path, place: Place) -> None:
    trained, start = weights(finished / "model"), weights(place.policy)
    assert trained.keys() == start.keys()
    moved = max(float((trained[name] - start[name]).abs().max()) for name in start)
    assert 1e-5 < moved < 1e-2
    text = "Question: who?"
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (finished / "model", place.policy)]
    assert tokenizers[0].encode(text) == tokenizers[1].encode(text)
    assert tokenizers[0].chat_template == tokenizers[1].chat_template


def test_mlflow_has_the_finished_run_with_metrics_traces_and_artifacts(finished: Path) -> None:
    client = MlflowClient(f"sqlite:///{finished.parent / 'mlflow.db'}")
    summary = json.loads((finished / "summary.json").read_text())
    run = client.get_run(summary["mlflow_run_id"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params["rollout.engine"] == "torch"
    assert (run.data.tags["method"], run.data.tags["seed"]) == ("calibadv", "3")
    f1 = client.get_metric_history(run.info.run_id, "eval/f1")
    assert [(m.step, m.value) for m in f1] == [(0, summary["f1_before"]), (STEPS, summary["f1_after"])]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "reward/mean")] == list(range(1, STEPS + 1))
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    assert len(traces) == 6 * STEPS
    assert {trace.info.trace_metadata["mlflow.sourceRun"] for trace in traces} == {run.info.run_id}
    artifacts = {
        file.path for part in (None, "model", "plots") for file in client.list_artifacts(run.info.run_id, part)
    }
    assert {
        "summary.json",
        "clipped_tokens.csv",
        "plots/overview.png",
        "model/model.safetensors",
        "report.html",
    } <= artifacts
    assert "<title>first · calibadv report</title>" in (finished / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("local_ray")
def test_the_sentinel_takes_the_policy_back_before_anyone_samples_from_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    # A limit that every step crosses: the second step raises the alarm, and goes back to the start.
    limits = {"sentinel__repetition": "1e-9", "sentinel__baseline_steps": "1", "sentinel__patience": "1"}
    # Colocated, so that a run whose engine and learner take turns is made here as well.
    options = {**limits, "sentinel__action": "rollback", "rollout__placement": "colocated"}
    options["rollout__torch_dtype"] = "float32"
    code, output = place.answer("taken-back", capsys, **options)
    assert code == 0, output
    assert "back to the policy of version 0" in output
    start, first, second = lines(place.runs / "taken-back" / "metrics.jsonl")
    assert (first["sentinel/rollbacks"], second["sentinel/rollbacks"]) == (0, 1)
    assert first["learner/grad_norm"] > 0
    assert second["eval/f1"] == start["eval/f1"]
    trained, untrained = weights(place.runs / "taken-back" / "model"), weights(place.policy)
    assert all(torch.equal(trained[name], untrained[name]) for name in untrained)


def test_a_second_run_into_the_same_folder_is_refused_and_changes_nothing(
    finished: Path, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    code, said = place.answer("first", capsys)
    assert code == 2
    assert f"{finished} holds a finished run: choose another with --run.name" in said
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"} == before


@pytest.mark.usefixtures("local_ray")
def test_a_run_whose_learner_is_killed_and_that_is_stopped_by_ctrl_c_is_in_the_end_the_run_that_was_never_hurt(
    place: Place, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM and SIGKILL: test_resume.py."""
    script, folder = tmp_path / "dies.py", place.runs / "hurt"
    script.write_text(DIES, encoding="utf-8")
    arguments = place.arguments("hurt", **WATCHED, learner__learners="1")
    process = start(script, str(tmp_path), *arguments, cwd=place.runs.parent, ray=place.ray)
    with killed_on_error(process):
        wait_for((tmp_path / "again").exists, process, "the same update in the second life")
        started = psutil.Process(process.pid).children(recursive=True)
        assert any("raylet" in child.name() for child in started)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        (tmp_path / "go").touch()
        code, output = ended(process)
    assert code == 130, output
    _, alive = psutil.wait_procs(started, timeout=120)
    assert not [child.cmdline() for child in alive]
    assert_saved(place, "hurt", output)
    assert "learner 0 was lost" in output
    assert "the run starts again by itself, restart 1 of 3" in output
    assert "made again: step 4 and what of a step was under way, from the checkpoint of step 3" in output
    (restart,) = lines(folder / "restarts.jsonl")
    assert "learner 0 was lost" in restart["why"]

    code, output = place.answer("hurt", capsys, "--resume", **WATCHED)
    assert code == 0, output
    summary = folder / "summary.json"
    values = json.loads(summary.read_text())
    assert values["restarts"] == 1
    summary.write_text(json.dumps(values | {"restarts": 0}))
    assert_same_run(folder, finished)
