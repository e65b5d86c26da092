"""What a run set differently from the recipe that it is nearest to."""

from __future__ import annotations

from calibadv.config import Config, load_config
from calibadv.report.settings import settings_of

NEAR = load_config(None, {"run.seed": 3, "learner.lr": 1e-5})
FAR = load_config(None, {"run.seed": 4, "learner.lr": 2e-5, "rollout.samples": 8, "learner.minibatch_rollouts": 8})


def test_the_recipe_with_the_fewest_differences_is_the_base_and_names_of_places_do_not_count() -> None:
    run = load_config(None, {"run.seed": 3, "learner.lr": 3e-5, "run.name": "mine", "tracking.experiment": "ours"})
    settings = settings_of(run, {"far.toml": FAR, "near.toml": NEAR})
    assert settings.base == "near.toml"
    assert [(one.key, one.value, one.base) for one in settings.differences] == [
        ("learner.lr", "3e-05", "1e-05"),  # what is learned comes first
        ("run.name", "mine", ""),
        ("tracking.experiment", "ours", "calibadv"),
    ]


def test_without_recipes_the_base_is_the_defaults_and_everything_is_there() -> None:
    settings = settings_of(Config(), {})
    assert (settings.base, settings.differences) == ("the defaults", ())
    assert settings.all["evaluation.every"] == "none"
    assert settings.all["rollout.samples"] == "5"


def test_a_parameter_that_one_side_lacks_is_a_difference() -> None:
    run = load_config(None, {"method.params": {"lam": 2.0}})
    (difference,) = settings_of(run, {}).differences
    assert (difference.key, difference.value, difference.base) == ("method.params.lam", "2", "–")
