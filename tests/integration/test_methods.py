"""Every method trains: ten steps each on the pocket world with the torch engine, as one small study on one Ray."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from calibadv.methods import METHODS
from tests.integration.commands import ROOT, ended, ray_folder, start

pytestmark = pytest.mark.integration

TIMEOUT_S = 1200
STEPS, UPDATES = 10, 2
PARAMS = {"mt_grpo": 'form = "tree"'}  # the form that needs a plan of its own

STUDY = """
name = "every-method"
recipe = "{recipe}"
concurrent = 2

[settings.run]
steps = {steps}
[settings.data]
questions_per_step = 4
test_questions = 4
[settings.search]
retriever = "bm25"
reranker = "none"
[settings.rollout]
engine = "torch"
torch_dtype = "float32"
engines = 1
samples = 3
[settings.learner]
minibatch_rollouts = 6
[settings.evaluation]
every = "none"
[settings.tracking]
sampled_rollouts = 1
"""
CELL = """
[[cell]]
name = "{name}"
method = "{name}"
params = {{ {params} }}
"""

Row = dict[str, float]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished study, a run a method."""
    base = tmp_path_factory.mktemp("methods")
    study = base / "study.toml"
    recipe = ROOT / "workflows" / "recipes" / "pocket.toml"
    cells = [CELL.format(name=name, params=PARAMS.get(name, "")) for name in METHODS]
    study.write_text(STUDY.format(recipe=recipe, steps=STEPS) + "".join(cells))
    with ray_folder() as ray:
        code, output = ended(start(ROOT / "workflows" / "compare.py", str(study), cwd=base, ray=ray), TIMEOUT_S)
    assert code == 0, output
    return base / "runs" / "every-method"


def steps_of(runs: Path, name: str) -> list[Row]:
    """The run's training steps, without the evaluation before them."""
    lines = (runs / f"{name}-seed0" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["step"] > 0]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_trains_for_ten_steps(runs: Path, name: str) -> None:
    rows = steps_of(runs, name)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert sum(row["learner/updates"] for row in rows) == STEPS * UPDATES
    assert sum(row["learner/skipped_updates"] for row in rows) == 0
    assert any(row["learner/grad_norm"] > 0 for row in rows)
    # Engine and learner hold the same weights at the start of every step.
    assert max(row["sync/logprob_diff_max"] for row in rows) < 1e-3
    assert all(math.isfinite(value) for row in rows for value in row.values())
    summary = json.loads((runs / f"{name}-seed0" / "summary.json").read_text())
    assert (summary["method"], summary["infra_failed"]) == (name, 0)


@pytest.mark.parametrize("name", ["ppo", "stepsearch"])
def test_critics_are_trained_on_what_their_method_rewards(runs: Path, name: str) -> None:
    rows = steps_of(runs, name)
    # A critic that says 0 has nothing to learn of a step without any reward.
    assert all(row["learner/critic_grad_norm"] > 0 for row in rows if row["critic/return_mean"] != 0)
    assert len({row["critic/return_mean"] for row in rows}) > 1
    # Whitened over the step: as much blame as praise, where there is any.
    ratios = [row["advantage/neg_pos_ratio"] for row in rows if "advantage/neg_pos_ratio" in row]
    assert ratios == pytest.approx([1.0] * len(ratios), abs=1e-3)
    assert len(ratios) > STEPS // 2


@pytest.mark.parametrize("name", ["tree_grpo", "mt_grpo"])
def test_branches_reuse_what_their_trunk_sampled(runs: Path, name: str) -> None:
    rows = steps_of(runs, name)
    assert sum(row["rollout/tokens_reused"] for row in rows) > 0
    assert all(row["rollout/tokens_reused"] == 0 for row in steps_of(runs, "grpo"))


def test_llds_own_term_is_reported(runs: Path) -> None:
    assert any(row["learner/extra_loss"] > 0 for row in steps_of(runs, "lld"))
    assert all("learner/extra_loss" not in row for row in steps_of(runs, "grpo"))


def test_methods_of_one_plan_sample_alike_at_first_and_learn_differently(runs: Path) -> None:
    rows = {name: steps_of(runs, name) for name in ("grpo", "ppo", "gigpo", "criticsearch", "stepsearch")}
    assert len({(steps[0]["learner/tokens"], steps[0]["reward/mean"]) for steps in rows.values()}) == 1
    assert len({tuple(step["learner/grad_norm"] for step in steps) for steps in rows.values()}) == len(rows)
