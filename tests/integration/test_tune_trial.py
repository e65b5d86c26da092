"""A Tune trial whose request is the whole cluster: its engines run, so they run in what it has reserved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ray import tune

from calibadv.config import load_config
from tests.integration.tune_trial import ENGINES, trial
from workflows.trials import trial_request

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def test_a_trials_engines_run_in_what_it_reserves(tmp_path: Path) -> None:
    config = load_config(None, {"rollout.engines": ENGINES, "cluster.gpus_per_engine": 0})
    file = tmp_path / "said.json"
    tune.Tuner(
        tune.with_resources(trial, trial_request(config)),
        param_space={"file": str(file)},
        run_config=tune.RunConfig(name="t", storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    said = json.loads(file.read_text())
    assert said["rows"] == 12
    assert said["trial"] != "none"
    assert said["engines"] == [said["trial"]]
