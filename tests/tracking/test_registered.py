"""A run's model as a version in MLflow's registry, and back as a folder."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from calibadv.cluster.model_folder import model_folder
from calibadv.config import load_config
from calibadv.doctor.subject import Subject
from calibadv.evaluation.models import find_models
from calibadv.pocket import policy_path
from calibadv.tracking.already_stored import AlreadyStored
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.registered import is_registered, registered_model

CARD = "# calibadv-seed0\n\nA search agent."


def test_a_registered_model_comes_back_by_version_and_alias_and_is_registered_once(runs: Path, tmp_path: Path) -> None:
    folder, uri = runs / "registered", f"sqlite:///{runs / 'mlflow.db'}"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    with MlflowRun(folder) as run:
        run.log_artifact(folder / "model", "model")
        run.register("agent", CARD)
    client = MlflowClient(uri)
    version = client.get_model_version_by_alias("agent", "newest")
    assert (version.version, version.run_id, version.description) in ((1, run.run_id, CARD), ("1", run.run_id, CARD))
    addresses = ("models:/agent/1", "models:/agent@newest")
    assert all(map(is_registered, addresses))
    with ThreadPoolExecutor(2) as pool:  # as runs of a study, which begin together
        found = set(pool.map(lambda address: registered_model(address, uri=uri, cache=tmp_path), addresses))
    assert [(folder / "config.json").read_text() for folder in found] == ["{}"]
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == list(found)  # fetched once
    again = {"op": "register", "name": "agent", "card": CARD, "time_ms": 1}
    assert run.run_id is not None
    assert AlreadyStored(client, run.run_id).has(again)
    assert not AlreadyStored(client, "0" * 32).has(again)


def test_a_registered_model_is_looked_for_where_the_configuration_has_its_runs(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, uri = runs / "looked-for", f"sqlite:///{runs / 'mlflow.db'}"
    shutil.copytree(policy_path(), folder / "model")
    (folder / "model" / "calibadv.toml").write_text("")
    with MlflowRun(folder) as run:
        run.log_artifact(folder / "model", "model")
        run.register("found", CARD)
    for key, value in (("tracking.mlflow_uri", uri), ("run.folder", str(runs))):
        place = tmp_path / key
        place.mkdir()
        monkeypatch.chdir(place)
        config = load_config(None, {key: value})
        fetched = place / ".cache" / "models" / f"found-1-{run.run_id}"
        assert model_folder("models:/found@newest", config) == fetched
        assert Subject(load_config(None, {key: value, "model.path": "models:/found/1"})).model.path == fetched
        (model,) = find_models(["models:/found@newest"], None, {key: value})
        assert model.folder == fetched
    elsewhere = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
    with pytest.raises(ValueError, match=r"is not to be had from sqlite:.*other.db"):
        model_folder("models:/found/1", load_config(None, {"tracking.mlflow_uri": uri}))


def test_what_is_not_registered_is_refused_by_its_address(runs: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{runs / 'mlflow.db'}"
    with pytest.raises(ValueError, match=r"models:/nobody/3 is not to be had from sqlite:.*--tracking.mlflow_uri"):
        registered_model("models:/nobody/3", uri=uri, cache=tmp_path)
    with pytest.raises(ValueError, match="expected models:/NAME/VERSION or models:/NAME@ALIAS"):
        registered_model("models:/agent", uri=uri, cache=tmp_path)
