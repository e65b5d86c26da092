"""From the study's file to its runs: what is planned, and what is refused before anything starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from calibadv.config import ConfigError, load_config
from calibadv.pocket import policy_path
from calibadv.studies.dry_run import check_files
from calibadv.studies.grid import check_finished, day_of, plan_study, same_run
from calibadv.studies.study import load_study
from tests.cluster.test_prompts import dated_model
from tests.studies.plan import CELLS, RECIPES, make_plan, study_file, write_run
from workflows import compare
from workflows.command import run_command

GRPO = '[[cell]]\nname = "grpo"\nmethod = "grpo"\n'


def test_a_run_is_recipe_then_settings_then_cell_then_command_line(tmp_path: Path) -> None:
    cells = GRPO + '[cell.settings.learner]\nlr = 2e-4\n[cell.settings.evaluation]\nevery = "none"\n'
    more = "settings.run.steps = 9\nsettings.learner.lr = 1e-4\nsettings.learner.clip = 0.3\n"
    plan = plan_study(load_study(study_file(tmp_path, cells, more)), {"learner.clip": 0.1})
    config = plan.runs[0].config
    assert (config.run.steps, config.learner.lr, config.learner.clip, config.evaluation.every) == (9, 2e-4, 0.1, None)
    assert config.data.questions_per_step == 32  # pocket.toml's own


def test_every_cell_is_planned_for_its_seeds_in_a_folder_of_its_own(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    folder = tmp_path / "runs" / "mine"
    names = ["grpo-seed0", "grpo-seed1", "calibadv-seed0", "calibadv-seed1", "calibadv-half-seed7"]
    assert [run.folder for run in plan.runs] == [folder / name for name in names]
    assert [run.config.run.seed for run in plan.runs] == [0, 1, 0, 1, 7]
    assert plan.runs[-1].config.method.params == {"lam": 0.5}
    assert {run.config.tracking.mlflow_uri for run in plan.runs} == {f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"}
    assert plan.folder == folder


@pytest.mark.parametrize(
    ("cells", "more", "message"),
    [
        (GRPO + "sedes = [1]", "", "unknown key 'cell.0.sedes' (did you mean 'seeds'?)"),
        (GRPO, "concurent = 2", "unknown key 'concurent' (did you mean 'concurrent'?)"),
        (GRPO, "settings.run.stepz = 2", "cell 'grpo': unknown key 'run.stepz' (did you mean 'run.steps'?)"),
        (GRPO + "params = { lam = 2 }", "", "cell 'grpo': method 'grpo' has no parameter 'lam'"),
        (GRPO.replace('method = "grpo"', 'method = "grop"'), "", "unknown method 'grop' (did you mean 'grpo'?)"),
        (GRPO + GRPO, "", "cell 'grpo' is named twice"),
        (GRPO + "seeds = [3, 3]", "", "seeds of cell 'grpo': seed 3 is named twice"),
        (GRPO + "seeds = []", "", "cell.0.seeds = []"),
        (GRPO + 'group = "tabel"', "", "cell.0.group.0 = 'tabel'"),
        (GRPO.replace('name = "grpo"', 'name = "../x"'), "", "cell.0.name = '../x'"),
        (GRPO, "settings.run.seed = 3", "sets 'run.seed', which the study decides: give `seeds`"),
        (GRPO + 'settings.method.name = "x"', "", "sets 'method.name', which the study decides"),
        ("", "", "cell = "),
    ],
)
def test_a_wrong_study_is_refused_by_name(tmp_path: Path, cells: str, more: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_plan(tmp_path, cells, more)
    assert message in str(error.value)


def test_the_command_line_cannot_set_what_the_study_decides(tmp_path: Path) -> None:
    study = load_study(study_file(tmp_path))
    for override in ({"run.seed": 3}, {"run.name": "x"}):
        with pytest.raises(ConfigError, match="the command line sets 'run"):
            plan_study(study, override)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.questions_per_step = 16", "has data.questions_per_step = 16, the other cells have 32"),
        ("learner.minibatch_rollouts = 80", "= 2, the other cells have 4"),
        ("run.steps = 3", "has run.steps = 3, the other cells have 16"),
        ('data.train = "other.jsonl"', "has data.train = 'other.jsonl', the other cells have 'pocket'"),
    ],
)
def test_a_cell_that_cannot_be_compared_is_named_unless_it_is_allowed_to_differ(
    tmp_path: Path, setting: str, message: str
) -> None:
    # The odd one comes first: what most cells have is the measure, not what the first has.
    odd = f'[[cell]]\nname = "odd"\nmethod = "grpo"\nsettings.{setting}\n'
    with pytest.raises(ConfigError) as error:
        make_plan(tmp_path, odd + CELLS)
    assert "cell 'odd'" in str(error.value)
    assert message in str(error.value)
    assert len(make_plan(tmp_path, f"{odd}allow_different = true\n{CELLS}").runs) == 7


def test_a_finished_run_is_kept_wherever_it_was_written_and_refused_under_another_configuration(
    tmp_path: Path,
) -> None:
    run = make_plan(tmp_path).runs[0]
    assert not check_finished(run)
    write_run(run, [], f1=0.5)
    assert check_finished(run)
    elsewhere = run.config.model_copy(update={"run": run.config.run.model_copy(update={"folder": Path("other")})})
    assert same_run(run.config, elsewhere)
    changed = make_plan(tmp_path, more="settings.learner.lr = 1e-4").runs[0]
    with pytest.raises(ValueError, match=r"was run under another configuration .* delete the folder"):
        check_finished(changed)


def test_a_finished_run_keeps_its_day_and_gives_it_to_those_that_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, *_, last = make_plan(tmp_path / "a").runs
    assert day_of([]) == ""
    write_run(first.told("2026-11-29"), [], f1=0.5)
    write_run(last, [], f1=0.5)  # of a model whose template writes no date
    assert check_finished(first)
    assert check_finished(last)
    assert day_of([last, first]) == "2026-11-29"
    assert caplog.text == ""
    write_run(second.told("2026-11-30"), [], f1=0.5)
    assert day_of([first, second]) == "2026-11-29"
    assert "told different days (rollout.date): ['2026-11-29', '2026-11-30']" in caplog.text
    asked = make_plan(tmp_path / "a", more='settings.rollout.date = "2026-11-30"').runs
    assert day_of(asked[:2]) == ""  # the study gives it
    with pytest.raises(ValueError, match="under another configuration"):
        check_finished(asked[0])


def test_runs_whose_template_writes_the_date_are_checked_for_one_day(tmp_path: Path) -> None:
    shutil.copytree(policy_path(), tmp_path / "model")
    dated_model(tmp_path / "model")
    odd = f'[[cell]]\nname = "odd"\nmethod = "grpo"\nallow_different = true\nsettings.model.path = "{policy_path()}"\n'
    more = f'settings.run.cache = "{tmp_path / "cache"}"\nsettings.model.path = "{tmp_path / "model"}"\n'
    runs = make_plan(tmp_path, GRPO + odd, more).runs
    told = [run.config.rollout.date for run in check_files(runs, "2026-11-29")]
    assert told == ["2026-11-29", "2026-11-29", "", ""]


def test_the_configuration_that_a_run_writes_is_the_one_that_was_planned(tmp_path: Path) -> None:
    for run in make_plan(tmp_path).runs:
        write_run(run, [])
        assert load_config(run.folder / "config.toml") == run.config


@pytest.mark.parametrize(
    ("more", "arguments", "message"),
    [
        ("recipe = 3", [], "is not TOML"),
        ("", ["--model.path", "/nowhere/model"], "model.path = '/nowhere/model' is neither"),
        ("", ["--learner.minibatch_rollouts", "7"], "cell 'grpo': data.questions_per_step x rollout.samples = 160"),
    ],
)
def test_a_wrong_study_ends_with_2_and_one_line_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, arguments: list[str], message: str
) -> None:
    asked = [str(study_file(tmp_path, more=more)), *arguments]
    assert run_command(lambda: compare.main(asked)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()  # a study's first deed is its lock there


def test_a_missing_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no study at {tmp_path}/none.toml: give a TOML file"):
        compare.main([str(tmp_path / "none.toml")])


def test_the_smoke_study_is_two_comparable_methods_of_five_steps() -> None:
    plan = plan_study(load_study(RECIPES.parent / "studies" / "smoke.toml"))
    assert [run.name for run in plan.runs] == ["grpo-seed0", "calibadv-seed0"]
    assert {(run.config.run.steps, run.config.rollout.engine) for run in plan.runs} == {(5, "torch")}
    assert plan.folder == Path("runs").absolute() / "smoke"
