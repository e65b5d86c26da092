"""Who goes where: the custom resources that engines, learners and retrievers ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.config import Config, ConfigError, load_config, role
from calibadv.methods import METHODS
from calibadv.rllib.config import CalibAdvConfig
from calibadv.rllib.stream import engine_pool
from serve.application import search_application

ROLES = {"cluster.engines_on": "engine", "cluster.learners_on": "learner", "cluster.search_on": "learner"}
ON_A_CLUSTER = {"cluster.address": "auto", "learner.learners": "2", "learner.minibatch_rollouts": "2560"}


def config(**settings: str) -> Config:
    return load_config(None, settings)


def test_a_role_asks_for_so_little_that_a_thousand_actors_share_one() -> None:
    assert role("engine") == {"engine": 0.001}
    assert role("") == {}


def test_engines_ask_for_the_nodes_of_engines() -> None:
    assert engine_pool(config(**ON_A_CLUSTER | ROLES)).resources == {"engine": 0.001}
    assert engine_pool(config(**ON_A_CLUSTER)).resources == {}


def test_learners_ask_for_the_nodes_of_learners() -> None:
    built = CalibAdvConfig().of_learners(config(**ON_A_CLUSTER | ROLES), METHODS["calibadv"](), "/nowhere")
    assert built.custom_resources_per_learner == {"learner": 0.001}


def test_retrievers_ask_for_the_nodes_they_are_given(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    chosen = config(**ON_A_CLUSTER | ROLES)
    app = search_application(chosen.search, tmp_path / "corpus.jsonl", tmp_path, role(chosen.cluster.search_on))
    assert app._bound_deployment.ray_actor_options["resources"] == {"learner": 0.001}


def test_retrievers_are_told_an_index_by_the_path_that_the_driver_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    app = search_application(config().search.but(faiss_index="e5.index"), "corpus.jsonl", "cache")
    _, told, cache = app._bound_deployment.init_args
    assert (told.faiss_index, cache) == (f"{tmp_path}/e5.index", f"{tmp_path}/cache")


@pytest.mark.parametrize("key", sorted(ROLES))
def test_a_role_on_a_local_ray_is_refused_before_it_would_wait_for_ever(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} = .* local Ray has none"):
        config(**{key: ROLES[key]})


def test_a_role_of_learners_that_learn_in_the_driver_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner\.learners = 0 learns in the driver"):
        config(**{"cluster.address": "auto", "cluster.learners_on": "learner"})
