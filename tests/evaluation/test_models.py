"""Which model an argument of evaluate.py means, and under which configuration it is asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from calibadv.config import load_config, to_toml
from calibadv.evaluation.models import DIALOGUE, find_models
from calibadv.pocket import policy_path
from tests.build import overrides_of
from workflows.shipped import RECIPES

POCKET_RECIPE = RECIPES / "pocket.toml"


def write_run(folder: Path, *overrides: str) -> Path:
    """A run's folder with a model, as train.py leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(load_config(POCKET_RECIPE, overrides_of(*overrides))))
    (folder / "metrics.jsonl").touch()
    (folder / "model").symlink_to(policy_path())
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "mine", "--method.name", "grpo", "--rollout.max_turns", "2")


def test_a_runs_folder_and_its_model_are_one_model_under_the_runs_configuration(run: Path) -> None:
    for given in (run, run / "model"):
        (model,) = find_models([str(given)], None, {})
        assert (model.name, model.folder) == ("mine", run / "model")
        assert model.config == load_config(run / "config.toml")
        assert (model.config.method.name, model.config.rollout.max_turns) == ("grpo", 2)


def test_with_a_recipe_method_and_dialogue_are_still_the_runs(run: Path) -> None:
    (model,) = find_models([str(run)], RECIPES / "qwen2.5-7b.toml", {})
    recipe = load_config(RECIPES / "qwen2.5-7b.toml")
    assert model.config.method.name == "grpo"
    assert (model.config.rollout.max_turns, model.config.rollout.template) == (2, "Question: {question}\n")
    assert model.config.rollout.engines == recipe.rollout.engines == 2
    assert (model.config.search, model.config.cluster) == (recipe.search, recipe.cluster)


@pytest.mark.parametrize("recipe", [None, POCKET_RECIPE])
def test_flags_win_over_run_and_recipe(run: Path, recipe: Path | None) -> None:
    (model,) = find_models([str(run)], recipe, {"rollout.max_turns": 1, "search.retriever": "bm25"})
    assert (model.config.rollout.max_turns, model.config.search.retriever) == (1, "bm25")
    assert model.config.method.name == "grpo"


def test_a_model_of_no_run_needs_a_recipe_and_is_asked_by_it(tmp_path: Path) -> None:
    folder = shutil.copytree(policy_path(), tmp_path / "tuned")
    with pytest.raises(
        ValueError, match="no model of one of our runs, so that nothing says how to ask it: give --config"
    ):
        find_models([str(folder)], None, {})
    (model,) = find_models([str(folder)], POCKET_RECIPE, {})
    assert (model.name, model.config) == ("tuned", load_config(POCKET_RECIPE))


def test_the_pocket_policy_needs_nothing() -> None:
    (model,) = find_models(["pocket"], None, {}, POCKET_RECIPE)
    assert (model.name, model.folder, model.config) == ("pocket", policy_path(), load_config(POCKET_RECIPE))


def test_a_model_may_be_given_a_name(run: Path) -> None:
    mine, other = find_models([str(run), f"GRPO-2={run / 'model'}"], None, {})
    assert (mine.name, other.name) == ("mine", "GRPO-2")
    assert mine.folder == other.folder


def test_two_models_of_one_name_are_refused(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "elsewhere" / "mine")
    with pytest.raises(ValueError, match=r"are both called 'mine': name one of them, e\.g\. mine-2="):
        find_models([str(run), str(other)], None, {})


def test_a_run_without_a_model_is_refused(run: Path) -> None:
    (run / "model").unlink()
    with pytest.raises(ValueError, match="is a run without a model/"):
        find_models([str(run)], None, {})


def test_what_is_neither_a_folder_nor_a_hub_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'nowhere' is neither a folder nor a hub name"):
        find_models(["nowhere"], POCKET_RECIPE, {})


def test_an_unknown_setting_is_refused_as_everywhere(run: Path) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'rollout.max_turns'"):
        find_models([str(run)], None, {"rollout.max_turn": 1})


def test_a_model_is_asked_with_the_prompt_and_the_limits_of_its_run() -> None:
    assert {"template", "system", "date", "max_turns", "max_tokens", "on_void_turn"} <= set(DIALOGUE)
    assert not {"engine", "engines", "samples", "temperature"} & set(DIALOGUE)


def test_a_model_that_carries_its_configuration_is_asked_by_it_wherever_it_lies(tmp_path: Path) -> None:
    folder = shutil.copytree(policy_path(), tmp_path / "copied")
    (folder / "calibadv.toml").write_text(to_toml(load_config(None, {"rollout.max_turns": 2})))
    (model,) = find_models([str(folder)], None, {"rollout.engines": 3})
    assert (model.name, model.config.rollout.max_turns, model.config.rollout.engines) == ("copied", 2, 3)
