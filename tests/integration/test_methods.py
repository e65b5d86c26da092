"""Every method trains: some steps each on the pocket world with the torch engine, one after another on one Ray."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest

from calibadv.config import load_config
from calibadv.methods import METHODS
from calibadv.training.inputs import corpus_file
from calibadv.views.open import open_view
from tests.integration.commands import ROOT
from tests.integration.runs import WITHOUT_PLOTS
from workflows.one_run import train_run
from workflows.session import served_search, started

pytestmark = pytest.mark.integration

STEPS, UPDATES = 2, 2
PARAMS = {"mt_grpo": {"method.params.form": "tree"}}  # the form that needs a plan of its own
SMALL = {
    "run.steps": STEPS,
    "data.questions_per_step": 4,
    "data.test_questions": 4,
    "search.retriever": "bm25",
    "search.reranker": "none",
    "rollout.engine": "torch",
    "rollout.torch_dtype": "float32",
    "rollout.engines": 1,
    "rollout.samples": 3,
    "learner.minibatch_rollouts": 6,
    "evaluation.every": "none",
    "tracking.sampled_rollouts": 1,
    "tracking.report": False,
    "checkpoint.every": 0,
}
APP = "search-methods"

Row = dict[str, float]
RunOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def run_of(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunOf]:  # noqa: ARG001
    """The folder of a method's finished run, which is trained when it is first asked for; all ask one search app."""
    base = tmp_path_factory.mktemp("methods")
    places = {"run.folder": base / "runs", "run.cache": base / "cache"}

    @cache
    def trained(name: str) -> Path:
        given = {"run.name": name, "method.name": name, **PARAMS.get(name, {})}
        config = load_config(ROOT / "workflows" / "recipes" / "pocket.toml", {**SMALL, **places, **given})
        with open_view(STEPS, plain=True) as view:
            train_run(config, view, parts=replace(WITHOUT_PLOTS, started=partial(started, search_app=APP)))
        return base / "runs" / name

    config = load_config(ROOT / "workflows" / "recipes" / "pocket.toml", {**SMALL, **places})
    with served_search(config, corpus_file(config), APP, stop=True):
        yield trained


def steps_of(run: Path) -> list[Row]:
    """The run's training steps, without the evaluation before them."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["step"] > 0]


# Of those that assign credit and do nothing else one is enough here: the laboratory trains each (tests/lab).
CREDIT_ALONE = {"first_exposure", "gigpo", "w_reinforce"}
ELSEWHERE = {"calibadv"}  # test_training.py


@pytest.mark.parametrize("name", sorted(METHODS.keys() - CREDIT_ALONE - ELSEWHERE))
def test_a_method_trains(run_of: RunOf, name: str) -> None:
    rows = steps_of(run_of(name))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert sum(row["learner/updates"] for row in rows) == STEPS * UPDATES
    assert sum(row["learner/skipped_updates"] for row in rows) == 0
    assert any(row["learner/grad_norm"] > 0 for row in rows)
    # Engine and learner hold the same weights at the start of every step.
    assert max(row["sync/logprob_diff_max"] for row in rows) < 1e-3
    assert all(math.isfinite(value) for row in rows for value in row.values())
    summary = json.loads((run_of(name) / "summary.json").read_text())
    assert (summary["method"], summary["infra_failed"]) == (name, 0)


@pytest.mark.parametrize("name", ["ppo", "stepsearch"])
def test_critics_are_trained_on_what_their_method_rewards(run_of: RunOf, name: str) -> None:
    rows = steps_of(run_of(name))
    # A critic that says 0 has nothing to learn of a step without any reward.
    assert all(row["learner/critic_grad_norm"] > 0 for row in rows if row["critic/return_mean"] != 0)
    assert len({row["critic/return_mean"] for row in rows}) > 1
    # Whitened over the step: as much blame as praise, where there is any.
    ratios = [row["advantage/neg_pos_ratio"] for row in rows if "advantage/neg_pos_ratio" in row]
    assert ratios == pytest.approx([1.0] * len(ratios), abs=1e-3)
    assert len(ratios) >= STEPS // 2


@pytest.mark.parametrize("name", ["tree_grpo", "mt_grpo"])
def test_branches_reuse_what_their_trunk_sampled(run_of: RunOf, name: str) -> None:
    rows = steps_of(run_of(name))
    assert sum(row["rollout/tokens_reused"] for row in rows) > 0
    assert all(row["rollout/tokens_reused"] == 0 for row in steps_of(run_of("grpo")))


def test_llds_own_term_is_reported(run_of: RunOf) -> None:
    assert any(row["learner/extra_loss"] > 0 for row in steps_of(run_of("lld")))
    assert all("learner/extra_loss" not in row for row in steps_of(run_of("grpo")))


def test_methods_of_one_plan_sample_alike_at_first_and_learn_differently(run_of: RunOf) -> None:
    rows = {name: steps_of(run_of(name)) for name in ("grpo", "ppo", "criticsearch", "stepsearch")}
    assert len({(steps[0]["learner/tokens"], steps[0]["reward/mean"]) for steps in rows.values()}) == 1
    assert len({tuple(step["learner/grad_norm"] for step in steps) for steps in rows.values()}) == len(rows)
