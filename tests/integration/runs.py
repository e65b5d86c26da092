"""Whole runs of `train.py`: where they live, what they are asked, and how two of them are compared.

The torch engine in fp32 and BM25 without reranker: every other part is the default run's own, at a hundredth of its
size. A command costs 40 seconds of a core, most of them for starting its processes; a run that this process makes on
the Ray of `local_ray` a third of that. So a command is started where the process is what is tried.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import ray
import torch
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM

from calibadv.tracking.groups import read_groups
from calibadv.training.parts import Parts
from tests.integration.commands import ROOT, ended, start, without_seconds
from workflows import one_run
from workflows.command import run_command
from workflows.train import main

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
    "tracking.report": "false",
}
# Counted from the clock, or of what a ledger knew already, so that they differ between equal runs.
CLOCKED = ("time/", "rollout/tokens_per_s", "search/")


STEPS = 6
SIX = {"run__steps": str(STEPS), "data__test_questions": "4", "checkpoint__keep_last": "1"}
WATCHED = {
    **SIX,
    "checkpoint__every": "3",
    "sentinel__action": "rollback",
    "sentinel__snapshot_every": "2",
    "sentinel__baseline_steps": "1",
    "method__keep": "credited",
    "method__spare_questions": "2",
    "tracking__report": "true",
}


# Which take as long as two steps each.
WITHOUT_PLOTS = replace(one_run.PARTS, overview=lambda *_: None, plots=lambda *_: [])


@dataclass(frozen=True)
class Place:
    """Where all runs of a module live: one folder of runs, one cache, one policy, one place for Ray's sockets."""

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

    def answer(self, name: str, capsys: pytest.CaptureFixture[str], *flags: str, **more: str) -> tuple[int, str]:
        """As `made_here`."""
        return made_here(self.arguments(name, *flags, **more), capsys)

    def trained(self, name: str, parts: Parts = WITHOUT_PLOTS, **more: str) -> Path:
        """The folder of a whole run that this process makes, on the Ray of `local_ray`."""
        assert ray.is_initialized()
        train = partial(one_run.train, parts=parts)
        assert run_command(lambda: main(self.arguments(name, **more), train=train)) == 0
        return self.runs / name


def made_here(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and words of `train.py` in this process: one that is to start nothing, or on the Ray of `local_ray`.

    Ray's processes are in another folder than this one: what they are to find needs a whole path.
    """
    capsys.readouterr()
    train = partial(one_run.train, parts=WITHOUT_PLOTS)
    code = run_command(lambda: main(arguments, train=train))
    return code, "".join(capsys.readouterr())


def lines(path: Path) -> list[dict[str, Any]]:
    """Those of a file of JSON lines; none where it is not there yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def measured(folder: Path) -> list[dict[str, float]]:
    rows = lines(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith(CLOCKED)} for row in rows]


def assert_same_run(resumed: Path, straight: Path) -> None:
    """Weights, trajectories with their log-probs' consequences, metrics, answers and figures."""
    records = lines(straight / "rollouts.jsonl")
    assert {record["step"] for record in records} == set(range(STEPS))
    assert without_seconds(lines(resumed / "rollouts.jsonl")) == without_seconds(records)
    assert measured(resumed) == measured(straight)
    kept = [[(stored.step, stored.trained) for stored in read_groups(folder)] for folder in (resumed, straight)]
    assert kept[0] == kept[1]
    assert [step for step, _ in kept[0]] == list(range(STEPS))
    assert lines(resumed / "predictions.jsonl") == lines(straight / "predictions.jsonl")
    one, other = weights(resumed / "model"), weights(straight / "model")
    assert [name for name in other if not torch.equal(one[name], other[name])] == []
    clocked = ("wall_s", "time_split", "mlflow_run_id")
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (resumed, straight)]
    assert [{k: v for k, v in s.items() if k not in clocked} for s in summaries[:1]] == [
        {k: v for k, v in s.items() if k not in clocked} for s in summaries[1:]
    ]


def assert_saved(place: Place, name: str, output: str) -> None:
    """What a polite end leaves: no traceback of ours, what was learned, and a run that can be gone on with."""
    folder = place.runs / name
    for ours in ("calibadv", "serve", "workflows"):
        assert f'File "{ROOT / ours}' not in output, output
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
