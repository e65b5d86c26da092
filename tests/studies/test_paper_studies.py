"""The studies of the paper's tables: checked as they are, without their data and models."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.config import load_config
from calibadv.studies.dry_run import not_here
from calibadv.studies.grid import Plan, plan_study
from calibadv.studies.study import load_study
from workflows.compare import main

pytestmark = pytest.mark.usefixtures("elsewhere")
FOLDER = Path(__file__).parents[2] / "workflows" / "studies"
PAPER = sorted(path.stem for path in FOLDER.glob("paper-*.toml"))
STEPS = {"Qwen/Qwen2.5-7B": 205, "Qwen/Qwen2.5-3B": 410, "meta-llama/Llama-3.2-3B-Instruct": 205}


def plan(name: str) -> Plan:
    return plan_study(load_study(FOLDER / f"{name}.toml"))


def test_tables_one_to_four_and_figure_six_are_there() -> None:
    models = ("llama-3.2-3b-instruct", "qwen2.5-3b", "qwen2.5-7b")
    tables = [f"paper-table1-{model}" for model in models] + ["paper-table2", "paper-table3-table4"]
    assert ["paper-figure6", *tables] == PAPER


@pytest.mark.parametrize("name", PAPER)
def test_a_dry_run_passes_and_says_what_is_not_here(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    assert main([str(FOLDER / f"{name}.toml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"Study {name}" in out
    assert "not here: data.train = 'data/train.parquet'" in out
    assert "a hub's name: fetched when the study runs" in out
    assert list(tmp_path.iterdir()) == []  # nothing was started


@pytest.mark.parametrize("name", PAPER)
def test_runs_are_of_the_papers_scale_and_the_released_scripts_sampling(name: str) -> None:
    for run in plan(name).runs:
        config = run.config
        assert config.run.steps == STEPS[config.model.path]
        assert (config.data.questions_per_step, config.rollout.samples, config.updates_per_step) == (512, 5, 10)
        assert (config.rollout.top_p, config.learner.old_logprobs, config.learner.lr) == (0.95, "recompute", 5e-7)
        assert (config.learner.warmup_steps, config.learner.passes) == (0, 1)


@pytest.mark.parametrize("name", [name for name in PAPER if "table1" in name])
def test_table_one_has_the_eight_methods_as_the_paper_ran_them(name: str) -> None:
    cells = {run.cell.name: run.config.method for run in plan(name).runs}
    assert list(cells) == ["grpo", "simpletir", "lld", "stepsearch", "mt_grpo", "tree_grpo", "gigpo", "calibadv"]
    assert cells["simpletir"].params == cells["lld"].params == {"variant": "calibadv_paper"}
    assert cells["mt_grpo"].params == {"form": "tree"}
    assert cells["calibadv"].params == {}


def test_table_two_adds_a_part_at_a_time() -> None:
    methods = [run.config.run_method() for run in plan("paper-table2").runs]
    assert [method.prefill for method in methods] == ["", "<think>", "<think>", "<think>"]
    params = [run.config.method.params for run in plan("paper-table2").runs]
    assert params == [{}, {"soft_pen": "none", "adv_reb": False}, {"adv_reb": False}, {}]


def test_figure_six_sweeps_lambda_without_the_other_parts() -> None:
    runs = plan("paper-figure6").runs
    assert [run.config.method.params.pop("lam") for run in runs] == [0.25, 0.5, 1, 2, 4]
    for run in runs:
        assert run.config.method.params == {"soft_pen": "none", "pre_think": False, "adv_reb_at": "every_step"}
        assert run.config.model.path == "Qwen/Qwen2.5-3B"


def test_a_dry_run_refuses_what_a_run_would(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    text = (FOLDER / "paper-table2.toml").read_text().replace('"../recipes', f'"{FOLDER.parent}/recipes')
    wrong.write_text(text.replace("soft_pen", "soft_pan"))
    with pytest.raises(ValueError, match="no parameter 'soft_pan'"):
        main([str(wrong), "--dry-run"])


def test_a_study_of_the_pocket_world_has_everything_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(FOLDER / "smoke.toml"), "--dry-run"]) == 0
    assert "Every file and model of the study is here." in capsys.readouterr().out


def test_a_model_is_here_where_a_run_would_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)

    def said(model: str) -> list[str]:
        return not_here([load_config(None, {"model.path": model})])

    fetched = "fetched when the study runs)"
    assert said("Qwen/Some") == [f"not here: model.path = 'Qwen/Some' (a hub's name: {fetched}"]
    assert said("models:/agent/1") == [f"not here: model.path = 'models:/agent/1' (MLflow's registry: {fetched}"]
    snapshot = tmp_path / "models--Qwen--Some" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    assert len(said("Qwen/Some")) == 1  # nothing in it yet
    (snapshot / "model.safetensors").write_bytes(b"")
    assert said("Qwen/Some") == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert said("Qwen/Other") == ["not here: model.path = 'Qwen/Other'"]
