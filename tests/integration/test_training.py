"""`python workflows/train.py` whole: what it leaves behind, and that it can be stopped.

That it repeats itself: test_resume.py, whose runs are compared with one another.

The torch engine in fp32 and BM25 without reranker: every other part is the default run's own, at a hundredth of its
size. Each whole run costs about half a minute of starting and stopping Ray, so that two runs serve most tests.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest
import torch
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from calibadv.config import load_config
from calibadv.pocket import policy_path
from tests.build import overrides_of
from tests.integration.commands import ROOT, ended, killed_on_error, ray_folder, start, wait_for

pytestmark = pytest.mark.integration

TRAIN = ROOT / "workflows" / "train.py"
SMALL = {
    "run.seed": "3",
    "run.steps": "2",
    "data.questions_per_step": "4",
    "data.test_questions": "8",
    "model.dtype": "float32",
    "rollout.engine": "torch",
    "rollout.engines": "1",
    "rollout.samples": "3",
    "learner.minibatch_rollouts": "6",
    "learner.threads": "1",
    "learner.lr": "3e-4",
    "learner.lr_final": "3e-5",
    "evaluation.every": "none",
    "search.retriever": "bm25",
    "search.reranker": "none",
    "tracking.sampled_rollouts": "2",
    "tracking.sample_every": "1",
}
# Counted from the clock, so that they differ between equal runs.
CLOCKED = ("time/", "rollout/tokens_per_s")


@dataclass(frozen=True)
class Place:
    """Where all runs of this file live: one folder of runs, one cache, one policy, one place for Ray's sockets."""

    runs: Path
    cache: Path
    policy: Path
    ray: Path

    def arguments(self, name: str, *flags: str, **more: str) -> list[str]:
        places = {
            "run.name": name,
            "run.folder": str(self.runs),
            "run.cache": str(self.cache),
            "model.path": str(self.policy),
        }
        overrides = SMALL | places | {key.replace("__", "."): value for key, value in more.items()}
        return [*flags, *(part for key, value in overrides.items() for part in (f"--{key}", value))]

    def start(self, name: str, *flags: str, **more: str) -> Popen[str]:
        """A training process."""
        return start(TRAIN, *self.arguments(name, *flags, **more), cwd=self.runs.parent, ray=self.ray)

    def run(self, name: str, *flags: str, **more: str) -> tuple[int, str]:
        """Exit code and output of a whole run."""
        return ended(self.start(name, *flags, **more))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("training")
    (base / "runs").mkdir()
    with ray_folder() as ray:
        yield Place(base / "runs", base / "cache", shutil.copytree(policy_path(), base / "policy"), ray)


@pytest.fixture(scope="module")
def finished(place: Place) -> Path:
    """The folder of a run of two steps that ended well."""
    code, output = place.run("first")
    assert code == 0, output
    return place.runs / "first"


def lines(path: Path) -> list[dict[str, Any]]:
    """Those of a file of JSON lines; none where it is not there yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_summary_has_every_figure_of_the_run(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    wanted = "method seed steps f1_before f1_after em_before em_after format_after wall_s logprob_diff_mean"
    assert {*wanted.split(), "time_split", "mlflow_run_id"} <= set(summary)
    assert (summary["method"], summary["seed"], summary["steps"], summary["engine"]) == ("calibadv", 3, 2, "torch")
    assert set(summary["time_split"]) == {"rollout", "learn", "sync", "eval", "other"}
    assert sum(summary["time_split"].values()) == pytest.approx(1, abs=0.01)
    assert all(0 <= summary[key] <= 1 for key in ("f1_before", "f1_after", "em_before", "em_after", "format_after"))
    assert 0 < summary["logprob_diff_mean"] < 1e-5
    assert (summary["infra_failed"], summary["skipped_updates"], summary["engine_share_max"]) == (0, 0, 1)


def test_metrics_have_a_line_for_the_start_and_one_a_step(finished: Path) -> None:
    start, *steps = lines(finished / "metrics.jsonl")
    assert [start["step"], *(line["step"] for line in steps)] == [0, 1, 2]
    assert start["eval/questions"] == steps[-1]["eval/questions"] == 8
    assert "eval/f1" not in steps[0]
    for line in steps:
        assert line["learner/updates"] == 2  # 4 questions x 3 rollouts in mini-batches of 6
        assert line["learner/skipped_updates"] == 0
        assert line["learner/tokens"] > 0
        # Engine and learner hold the same weights at every step: a publication that was lost would show here.
        assert line["sync/logprob_diff_max"] < 1e-4
    cosine = [3e-5 + 27e-5 * share for share in (0.8535533906, 0.1464466094)]  # (1 + cos(pi x/4)) / 2, x = 1 and 3
    assert [line["learner/lr"] for line in steps] == pytest.approx(cosine)


def test_configuration_reloads_as_what_was_run(finished: Path, place: Place) -> None:
    overrides = place.arguments("first")
    asked = load_config(ROOT / "workflows" / "recipes" / "pocket.toml", overrides_of(*overrides))
    assert load_config(finished / "config.toml") == asked


def test_sampled_rollouts_are_whole_groups_with_their_credit(finished: Path) -> None:
    records = lines(finished / "rollouts.jsonl")
    assert [record["step"] for record in records] == [0] * 6 + [1] * 6  # two groups of three a step
    assert all(record["policy_version"] == record["step"] for record in records)
    assert [record["index"] for record in records] == [0, 1, 2] * 4
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


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


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
    assert [(m.step, m.value) for m in f1] == [(0, summary["f1_before"]), (2, summary["f1_after"])]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "reward/mean")] == [1, 2]
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    assert len(traces) == 12
    assert {trace.info.trace_metadata["mlflow.sourceRun"] for trace in traces} == {run.info.run_id}
    artifacts = {
        file.path for part in (None, "model", "plots") for file in client.list_artifacts(run.info.run_id, part)
    }
    assert {"summary.json", "clipped_tokens.csv", "plots/overview.png", "model/model.safetensors"} <= artifacts


def test_the_sentinel_takes_the_policy_back_before_anyone_samples_from_it(place: Place) -> None:
    # A limit that every step crosses: the second step raises the alarm, and goes back to the start.
    limits = {"sentinel__repetition": "1e-9", "sentinel__baseline_steps": "1", "sentinel__patience": "1"}
    # Colocated, so that a run whose engine and learner take turns is made here as well.
    code, output = place.run("taken-back", sentinel__action="rollback", rollout__placement="colocated", **limits)
    assert code == 0, output
    assert "back to the policy of version 0" in output
    start, first, second = lines(place.runs / "taken-back" / "metrics.jsonl")
    assert (first["sentinel/rollbacks"], second["sentinel/rollbacks"]) == (0, 1)
    assert first["learner/grad_norm"] > 0
    assert second["eval/f1"] == start["eval/f1"]
    trained, untrained = weights(place.runs / "taken-back" / "model"), weights(place.policy)
    assert all(torch.equal(trained[name], untrained[name]) for name in untrained)


def test_a_second_run_into_the_same_folder_is_refused_and_changes_nothing(finished: Path, place: Place) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    code, output = place.run("first")
    assert code == 2
    assert f"{finished} holds a finished run: choose another with --run.name" in output
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"} == before


@pytest.mark.parametrize(("polite", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, os.EX_TEMPFAIL)])
def test_ctrl_c_and_a_kill_save_what_was_learned_and_leave_no_process(
    place: Place, polite: signal.Signals, code: int
) -> None:
    name = f"stopped-{polite.name}"
    process = place.start(name, run__steps="500", data__test_questions="2")
    folder = place.runs / name
    with killed_on_error(process):
        wait_for(lambda: len(lines(folder / "metrics.jsonl")) > 2, process, "a second step")
        started = psutil.Process(process.pid).children(recursive=True)
        assert any("raylet" in child.name() for child in started)
        if polite is signal.SIGINT:
            os.killpg(process.pid, polite)  # as a terminal does: to the whole group
        else:
            os.kill(process.pid, polite)
        left, output = ended(process)
    assert left == code, output
    for ours in ("calibadv", "serve", "workflows"):
        assert f'File "{ROOT / ours}' not in output, output  # no traceback goes through our code
    _, alive = psutil.wait_procs(started, timeout=120)
    assert not [child.cmdline() for child in alive]

    assert not (folder / "summary.json").exists()  # it says that a run is finished
    trained, start = weights(folder / "model"), weights(place.policy)
    assert any(not torch.equal(trained[name], start[name]) for name in start)
    made = lines(folder / "metrics.jsonl")[-1]["step"]
    assert f"step {made} is saved: the same command with --resume goes on there" in output
    assert (folder / "checkpoints" / f"step-{made:06}" / "manifest.json").exists()
    assert (folder / "plots" / "overview.png").exists()
    client = MlflowClient(f"sqlite:///{place.runs / 'mlflow.db'}")
    run_id = json.loads((folder / "mlflow.json").read_text())["run_id"]
    assert client.get_run(run_id).info.status == "KILLED"
    assert len(client.get_metric_history(run_id, "reward/mean")) >= 2
