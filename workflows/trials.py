"""Runs the study's trials on Ray Tune: one Ray cluster, one search app for all, a process of its own for each run."""

from __future__ import annotations

import logging
import os
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from calibadv.cluster.names import app_name
from calibadv.config import Config, role
from calibadv.studies.grid import Plan, PlannedRun
from calibadv.studies.results import failure_file
from calibadv.studies.tracked import child_tags
from calibadv.training.inputs import corpus_file
from calibadv.training.readiness import Unready
from calibadv.training.sentinel import Collapsed
from calibadv.views.open import open_view
from workflows.one_run import PARTS, train_run
from workflows.session import ray_of, served_search, started, wanted_cpus

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a recipe's relative paths mean the same in a trial as here
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folder is the record, not TensorBoard's files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own swallows Ctrl-C and returns as if the study had ended
}

Begun = Callable[[PlannedRun], None]
Ended = Callable[[PlannedRun, str], None]  # and why it failed, "" if it did not


def run_trials(plan: Plan, waiting: Sequence[PlannedRun], parent_id: str | None, begun: Begun, ended: Ended) -> None:
    """Train every waiting run, `concurrent` at a time. One that fails is reported by `ended`; the others go on.

    A trial requests all that it computes with (`trial_request`): one for which there is no room waits as a whole and
    says so, where engines of two trials could else wait for each other. A search app of a run's own is not among it:
    Serve places replicas itself. A local cluster is started with enough for both.
    """
    os.environ.update(_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    results = plan.folder / ".tune"
    shutil.rmtree(results, ignore_errors=True)
    # Seed by seed, so that an early look at a long study has every cell.
    runs = {run.name: run for run in sorted(waiting, key=lambda run: run.seed)}
    app = app_name("search", plan.folder)
    with _cluster(plan, waiting, app):
        trainable = tune.with_parameters(trial, plan=plan, parent_id=parent_id, app=app, shared=waiting[0].config)
        tune.Tuner(
            tune.with_resources(trainable, lambda spec: trial_request(runs[spec["run"]].config)),
            param_space={"run": tune.grid_search(list(runs))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=plan.study.concurrent,
                reuse_actors=False,  # a process carries no state from one run into the next
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(results),
                verbose=0,
                callbacks=[_Follow(plan, runs, begun, ended)],
            ),
        ).fit()


def trial_request(config: Config) -> tune.PlacementGroupFactory:
    """What Tune reserves for a run: a bundle for its process, for each remote learner and for each engine.

    The process takes a logical CPU. RLlib and the rollout stage put learners and engines
    into the trial's placement group by themselves. Colocated, a learner and its engine are one bundle: the shares of a
    GPU by themselves might be of two.
    """
    learner, rollout, cluster = config.learner, config.rollout, config.cluster
    here = Counter({"CPU": 1.0})
    apart = {"CPU": 1.0, "GPU": learner.gpus_per_learner, **role(cluster.learners_on)}
    gpus = cluster.gpus_per_engine * rollout.tensor_parallel
    engine = {"CPU": cluster.cpus_per_engine, "GPU": gpus, **role(cluster.engines_on)}
    learners, engines = [Counter(apart)] * learner.learners, [Counter(engine)] * rollout.engines
    if rollout.colocated:
        nothing: Counter[str] = Counter()
        pairs = [a + b for a, b in zip_longest(learners, engines, fillvalue=nothing)]
    else:
        pairs = [*learners, *engines]
    asked = [{name: round(amount, 4) for name, amount in bundle.items() if amount} for bundle in (here, *pairs)]
    return tune.PlacementGroupFactory([bundle for bundle in asked if bundle])  # Ray refuses a bundle of nothing


def study_cpus(configs: Sequence[Config], concurrent: int) -> float:
    """Logical CPUs for the `concurrent` largest runs at once, their own processes included."""
    return sum(sorted((wanted_cpus(config) + 1 for config in configs), reverse=True)[:concurrent])


def shares_search(config: Config, shared: Config) -> bool:
    """Whether a run can use the study's search app: it asks the same corpus in the same way."""
    return (config.search, config.data.corpus) == (shared.search, shared.data.corpus)


@contextmanager
def _cluster(plan: Plan, waiting: Sequence[PlannedRun], app: str) -> Iterator[None]:
    """The trials' Ray and their search app."""
    config, wanted = waiting[0].config, study_cpus([run.config for run in waiting], plan.study.concurrent)
    given = config.cluster.logical_cpus
    if config.cluster.address == "local" and given is not None and given < wanted:
        raise ValueError(
            f"cluster.logical_cpus = {given} are too few for {plan.study.concurrent} runs at once, which take "
            f"{wanted:g}: leave it out, raise it, or lower `concurrent`"
        )
    with ray_of(config, wanted) as ends, served_search(config, corpus_file(config), app, stop=not ends):
        yield


def trial(
    assignment: dict[str, str],
    plan: Plan,
    parent_id: str | None,
    app: str,
    shared: Config,
    train: Callable[..., object] = train_run,
) -> None:
    """One run, in the process of its trial. Why it failed is kept in a file (`failure_file`)."""
    run = next(run for run in plan.runs if run.name == assignment["run"])
    tags = child_tags(plan, run, parent_id)
    parts = replace(PARTS, started=partial(started, search_app=app)) if shares_search(run.config, shared) else PARTS
    try:
        with open_view(run.config.run.steps, plain=True) as view:
            train(run.config, view, tags=tags, parts=parts)
    except (Collapsed, Unready) as end:
        _write_failure(plan, run, str(end))
        raise
    except Exception:  # not an interruption: that run is unfinished, not failed
        _write_failure(plan, run, traceback.format_exc())
        raise


class _Follow(tune.Callback):  # type: ignore[misc]
    """Passes on which run starts and ends."""

    def __init__(self, plan: Plan, runs: dict[str, PlannedRun], begun: Begun, ended: Ended) -> None:
        self._plan, self._runs, self._begun, self._ended = plan, runs, begun, ended

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps its callbacks on disk to go on from there, which is ours to do (`check_finished`)."""
        return {}

    def on_trial_start(self, trial: Trial, **_: Any) -> None:
        run = self._run(trial)
        failure_file(self._plan.folder, run).unlink(missing_ok=True)  # of an earlier attempt
        self._begun(run)

    def on_trial_complete(self, trial: Trial, **_: Any) -> None:
        self._ended(self._run(trial), "")

    def on_trial_error(self, trial: Trial, **_: Any) -> None:
        run = self._run(trial)
        kept = failure_file(self._plan.folder, run)
        if not kept.exists():  # the process died and could not say why
            _write_failure(self._plan, run, str(trial.get_error() or "the trial's process died"))
        self._ended(run, kept.read_text(encoding="utf-8"))

    def _run(self, trial: Trial) -> PlannedRun:
        return self._runs[trial.config["run"]]


def _write_failure(plan: Plan, run: PlannedRun, text: str) -> None:
    path = failure_file(plan.folder, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _name(trial: Trial) -> str:
    return str(trial.config["run"])
