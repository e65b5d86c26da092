"""What a trial of a study asks Ray for, and what it leaves behind when its run does not finish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calibadv.config import load_config
from calibadv.studies.results import State, read_run
from calibadv.training.parts import Parts
from calibadv.training.readiness import Unready
from calibadv.training.sentinel import Collapsed
from tests.build import configured
from tests.studies.plan import make_plan
from workflows.one_run import PARTS
from workflows.trials import run_trials, shares_search, study_cpus, trial, trial_request


def fails(folder: Path, error: Exception) -> str:
    """The reason that is kept of a run that ends with `error`."""
    plan = make_plan(folder)
    run = plan.runs[0]

    def train(*_: Any, **__: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        trial({"run": run.name}, plan, None, "app", run.config, train=train)
    result = read_run(plan.folder, run)
    assert result.state is State.FAILED
    return result.failure


@pytest.mark.parametrize("end", [Unready("stopped, for it would learn nothing"), Collapsed("stopped at step 6")])
def test_a_run_that_was_stopped_is_reported_in_its_own_words(tmp_path: Path, end: Exception) -> None:
    assert fails(tmp_path, end) == str(end)


def test_a_run_that_crashed_keeps_its_traceback(tmp_path: Path) -> None:
    failure = fails(tmp_path, RuntimeError("it broke"))
    assert failure.startswith("Traceback")
    assert failure.endswith("RuntimeError: it broke")


@pytest.mark.parametrize("top_k", [20, 5], ids=["the study's search", "its own"])
def test_a_runs_page_is_held_against_its_recipe_whichever_search_it_has(tmp_path: Path, top_k: int) -> None:
    plan = make_plan(tmp_path)
    run, seen = plan.runs[0], []

    def train(*_: Any, parts: Parts, **__: Any) -> None:
        seen.append(parts)

    shared = load_config(None, {"search.top_k": top_k}) if top_k == 5 else run.config
    trial({"run": run.name}, plan, None, "app", shared, train=train)
    (parts,) = seen
    assert parts.report is PARTS.report
    assert (parts.started is PARTS.started) == (top_k == 5)


def test_studies_of_one_name_in_two_folders_have_two_search_apps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        """Ends the study where its search app would be started."""

    def cluster(_plan: object, _waiting: object, app: str) -> None:
        raise Asked(app)

    monkeypatch.setattr("workflows.trials._cluster", cluster)
    monkeypatch.setattr("workflows.trials._ENVIRONMENT", {})

    def app(folder: Path) -> str:
        plan = make_plan(folder)
        with pytest.raises(Asked) as asked:
            run_trials(plan, plan.runs, None, lambda _: None, lambda *_: None)
        return str(asked.value)

    assert app(tmp_path / "me") == app(tmp_path / "me") != app(tmp_path / "you")


def test_a_trial_reserves_its_process_its_learners_and_its_engines() -> None:
    def request(*overrides: str) -> list[dict[str, float]]:
        bundles: list[dict[str, float]] = trial_request(configured(*overrides)).bundles
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
