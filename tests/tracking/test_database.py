"""MLflow's database in folders whose names mean something in an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibadv.tracking.database import database_path, store_uri
from calibadv.tracking.mlflow_run import MlflowRun

NAMES = ["50% done", "a#b", "a b", "größe", "x%23y", "a;b&c=d", "a+b@c", "100%", "%41"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_comes_back_from_its_uri(tmp_path: Path, name: str) -> None:
    runs = tmp_path / name / "runs"
    assert database_path(store_uri(runs)) == runs / "mlflow.db"


def test_a_question_mark_is_refused_for_what_follows_would_be_options(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"run.folder = '.*a\?b': .*choose a folder without, or set tracking.mlflow_uri"
    ):
        store_uri(tmp_path / "a?b")


def test_options_are_no_part_of_the_path_and_servers_have_none() -> None:
    assert database_path("sqlite:////data/mlflow.db?timeout=30") == Path("/data/mlflow.db")
    assert database_path("http://127.0.0.1:5000") is None


@pytest.mark.integration
def test_metrics_and_files_of_such_a_folder_are_found_in_mlflow(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    folder = tmp_path / " ".join(NAMES) / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    run = MlflowRun(folder, first_pause_s=0.1)
    run.log_metrics(1, {"eval/f1": 0.5})
    run.log_artifact(folder / "summary.json")
    assert run.close() == 0
    assert sorted(path.name for path in folder.parent.iterdir()) == ["mine", "mlartifacts", "mlflow.db"]
    client = MlflowClient(run.uri)
    assert run.run_id is not None
    assert client.get_run(run.run_id).data.metrics == {"eval/f1": 0.5}
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["summary.json"]
    (tmp_path / "down").mkdir()
    assert Path(client.download_artifacts(run.run_id, "summary.json", str(tmp_path / "down"))).read_text() == "{}"
