"""Folders of runs that were copied, moved or renamed: each has its own runs and files, and touches no other's."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from calibadv.tracking.charts import first_page
from calibadv.tracking.database import store_uri
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.moved_store import correct_artifact_roots
from calibadv.tracking.pages import BASE, main, newest_page, run_page, ui_command
from calibadv.tracking.run_folder import RunFolder
from tests.tracking.fake_run import record


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run; made once, for its schema takes seconds."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    write(runs / "a", "first")
    return runs


@pytest.fixture
def runs(database: Path, tmp_path: Path) -> Path:
    """The same, moved to a folder of the test's own, whose name needs quoting in an address."""
    (tmp_path / "a place").mkdir()
    moved = shutil.copytree(database, tmp_path / "a place" / "runs")
    correct_artifact_roots(moved / "mlflow.db")
    return moved


def write(folder: Path, words: str) -> str:
    """A run that leaves a file and a trace, as a new process makes it; its id."""
    _artifact_repos_cache.clear()
    with MlflowRun(folder, experiment="moving") as run:
        (folder / "note.txt").write_text(words)
        run.log_artifact(folder / "note.txt")
        with RunFolder(folder, resume=True) as written:
            written.append_rollouts([record()])
    assert run.run_id is not None
    return run.run_id


def read(runs: Path, run_id: str) -> str:
    """The run's file, as a new process finds it: MLflow remembers where a run's artifacts were."""
    _artifact_repos_cache.clear()
    return Path(MlflowClient(store_uri(runs)).download_artifacts(run_id, "note.txt")).read_text()


def files(runs: Path) -> dict[str, bytes]:
    return {str(path.relative_to(runs)): path.read_bytes() for path in sorted(runs.rglob("*")) if path.is_file()}


def ids(runs: Path) -> list[str]:
    client = MlflowClient(store_uri(runs))
    experiment = client.get_experiment_by_name("moving")
    return sorted(run.info.run_id for run in client.search_runs([experiment.experiment_id]))


def test_a_copy_neither_reads_nor_writes_the_original(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs, tmp_path / "elsewhere")
    before = files(runs)
    (old,) = ids(runs)
    assert ui_command(copy, 5000)  # what `make mlflow` does first
    assert read(copy, old) == "first"
    shutil.rmtree(copy / "mlartifacts" / old)
    with pytest.raises(MlflowException, match=r"note\.txt"):
        read(copy, old)  # it looked at its own
    new = write(copy / "b", "of the copy")
    assert read(copy, new) == "of the copy"
    assert ids(copy) == sorted([old, new])
    assert files(runs) == before
    assert any(str(path).endswith("note.txt") for path in (copy / "mlartifacts" / new).rglob("*"))
    client = MlflowClient(store_uri(copy))
    experiment = client.get_experiment_by_name("moving").experiment_id
    assert len(client.search_traces(locations=[experiment])) == 2


def test_a_moved_folder_goes_on_with_its_runs_and_files(runs: Path, tmp_path: Path) -> None:
    (old,) = ids(runs)
    moved = Path(shutil.move(runs, tmp_path / "there"))
    assert write(moved / "a", "second") == old  # the run goes on in its folder
    assert read(moved, old) == "second"
    assert not runs.exists()


def test_settling_says_what_it_changed_and_does_it_once(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs, tmp_path / "elsewhere")
    assert correct_artifact_roots(copy / "mlflow.db") == [(runs / "mlartifacts").as_uri()]
    assert correct_artifact_roots(copy / "mlflow.db") == []
    assert correct_artifact_roots(tmp_path / "nothing" / "mlflow.db") == []


def test_the_same_folder_by_another_path_is_left_alone(runs: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        (link / name).symlink_to(runs / name)
    before = (runs / "mlflow.db").read_bytes()
    assert correct_artifact_roots(link / "mlflow.db") == []
    assert (runs / "mlflow.db").read_bytes() == before


def test_a_run_folder_copied_beside_its_original_is_a_run_of_its_own(runs: Path) -> None:
    (old,) = ids(runs)
    shutil.copytree(runs / "a", runs / "b")
    new = write(runs / "b", "of the copy")
    assert new != old
    assert (read(runs, old), read(runs, new)) == ("first", "of the copy")


def test_a_run_folder_copied_to_another_store_is_made_anew_there(runs: Path, tmp_path: Path) -> None:
    (old,) = ids(runs)
    other = tmp_path / "other"
    shutil.copytree(runs / "a", other / "d")
    before = files(runs)
    new = write(other / "d", "made anew")
    assert (ids(other), read(other, new)) == ([new], "made anew")
    assert new != old
    assert files(runs) == before


def test_a_renamed_run_folder_goes_on_with_its_run(runs: Path) -> None:
    (old,) = ids(runs)
    shutil.move(runs / "a", runs / "renamed")
    assert write(runs / "renamed", "second") == old


def test_pages_of_a_folder_without_runs_are_refused_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main([str(tmp_path)]) == 2
    assert caplog.messages == [
        f"error: {tmp_path} holds no mlflow.db: train first (make train), or name the folder with RUNS=FOLDER"
    ]


def test_the_first_page_is_that_of_the_experiment_in_which_a_run_last_began_in_its_own_view(runs: Path) -> None:
    experiment = MlflowClient(store_uri(runs)).get_experiment_by_name("moving")
    page = newest_page(runs / "mlflow.db", BASE)
    assert page == first_page(BASE, experiment.experiment_id)
    (key,) = re.findall("viewStateShareKey=(.*)", page)
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    sections = [section["uuid"] for section in view["compareRunSections"]]
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == set(sections)
    assert sections[0] == "Held-out questions"
    assert newest_page(runs / "empty.db", BASE) is None


def test_a_page_is_named_by_experiment_and_run() -> None:
    assert run_page(f"{BASE}/", "3", "ab12") == "http://127.0.0.1:5000/#/experiments/3/runs/ab12"
