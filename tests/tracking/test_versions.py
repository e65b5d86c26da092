"""Data sets and versions of the policy in a real MLflow store: all there, each once, whatever happens in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.entities import LoggedModel

from calibadv.tracking.catch_up import catch_up
from calibadv.tracking.data_sets import DataSet
from calibadv.tracking.mlflow_run import MlflowRun
from calibadv.tracking.provenance import EXPERIMENT_NOTE
from calibadv.tracking.run_folder import RunFolder
from calibadv.tracking.target import Target
from calibadv.types import Question
from tests.tracking.old_server import old_server
from tests.tracking.test_mlflow import client

DEAD = "http://127.0.0.1:9"
TEST = DataSet("test.jsonl", "0" * 32, "test", 120, "/data/test.jsonl")
DATA = [DataSet("train.jsonl", "1" * 32, "train", 400, "/data/train.jsonl"), TEST]
FIGURES = ("eval/em", "eval/f1")


def models_of(runs: Path, run: str) -> list[LoggedModel]:
    experiment = client(runs).get_run(run).info.experiment_id
    found = client(runs).search_logged_models([experiment], filter_string=f"source_run_id = '{run}'")
    return sorted(found, key=lambda model: str(model.name))


def figures(model: LoggedModel) -> set[tuple[str, float, int, str, str]]:
    return {(m.key, m.value, m.step, m.dataset_name, m.dataset_digest) for m in model.metrics}


def write_run(folder: RunFolder, run: MlflowRun) -> None:
    """Two evaluated versions, 2 and 4, of which the later is the final one, and its files."""
    folder.model.mkdir(exist_ok=True)
    (folder.model / "README.md").write_text("# card")
    run.log_inputs(DATA)
    run.log_questions(TEST, [Question("a", "Where?", ("Oslo", "Christiania")), Question("b", "Who?", ("Ada",))])
    for step, f1 in ((1, None), (2, 0.25), (3, None), (4, 0.5)):
        evaluation = {} if f1 is None else {"eval/f1": f1, "eval/em": f1 / 2}
        folder.append_metrics(step, {"reward/mean": 0.1, **evaluation})
        if evaluation:
            run.log_version(step, evaluation, {"checkpoint": "kept"}, data=TEST)
    run.log_version_tags(2, {"checkpoint": "removed"})
    run.log_version_tags(3, {"checkpoint": "removed"})  # of a version that is no model
    run.log_version(4, FIGURES, {"final": "true"}, data=TEST, files=[folder.model / "README.md", folder.model / "gone"])


def check(runs: Path, run_id: str, name: str) -> None:
    """The store has all of `write_run`, each once."""
    stored = client(runs).get_run(run_id)
    second, fourth = models_of(runs, run_id)
    assert [second.name, fourth.name] == [f"{name}-step-000002", f"{name}-step-000004"]
    assert str(second.status) == str(fourth.status) == "READY"
    assert second.tags == {"step": "2", "checkpoint": "removed"}
    assert fourth.tags == {"step": "4", "checkpoint": "kept", "final": "true"}
    measured = (TEST.name, TEST.digest)
    assert figures(second) == {("eval/f1", 0.25, 2, *measured), ("eval/em", 0.125, 2, *measured)}
    assert figures(fourth) == {("eval/f1", 0.5, 4, *measured), ("eval/em", 0.25, 4, *measured)}
    assert len(second.metrics) == len(fourth.metrics) == 2
    # A figure that is linked to a model is no second point of the run's curve.
    history = client(runs).get_metric_history(run_id, "eval/f1")
    assert [(point.step, point.value) for point in history] == [(2, 0.25), (4, 0.5)]
    outputs = {(output.model_id, output.step) for output in stored.outputs.model_outputs}
    assert outputs == {(second.model_id, 2), (fourth.model_id, 4)}
    inputs = {given.dataset.name: given for given in stored.inputs.dataset_inputs}
    assert len(stored.inputs.dataset_inputs) == 2
    test = inputs["test.jsonl"]
    assert {tag.key: tag.value for tag in test.tags} == {"mlflow.data.context": "test"}
    assert test.dataset.digest == TEST.digest
    assert json.loads(test.dataset.profile) == {"num_rows": 120}
    assert json.loads(test.dataset.source) == {"uri": "/data/test.jsonl"}


def test_data_sets_and_versions_arrive_linked_to_their_run_and_figures(runs: Path, tmp_path: Path) -> None:
    with RunFolder(runs / "versions") as folder, MlflowRun(folder.path, run_name="a.b: c") as run:
        write_run(folder, run)
    assert run.run_id is not None
    check(runs, run.run_id, "a-b- c")
    (kept,) = client(runs).search_datasets(experiment_ids=[client(runs).get_run(run.run_id).info.experiment_id])
    assert (kept.name, kept.tags["source"]) == ("test.jsonl 00000000, 2 of 120 asked", "/data/test.jsonl")
    assert json.loads(kept.profile) == {"num_records": 2}
    final = models_of(runs, run.run_id)[1]
    from mlflow.artifacts import download_artifacts

    uri = f"sqlite:///{runs / 'mlflow.db'}"
    card = download_artifacts(f"{final.artifact_location}/README.md", dst_path=str(tmp_path), tracking_uri=uri)
    assert Path(card).read_text() == "# card"


def test_what_is_delivered_again_after_a_kill_stands_there_once(runs: Path) -> None:
    path = runs / "versions-again"
    with RunFolder(path) as folder, MlflowRun(path) as first:
        write_run(folder, first)
    # As if the process had been killed after a delivery and before it was remembered.
    state = json.loads((path / "mlflow.json").read_text())
    (path / "mlflow.json").write_text(json.dumps(state | {"offsets": {}}))
    with RunFolder(path, resume=True) as folder, MlflowRun(path) as second:
        write_run(folder, second)  # made again from the first step on
    assert second.run_id == first.run_id is not None
    check(runs, first.run_id, "versions-again")
    experiment = client(runs).get_run(first.run_id).info.experiment_id
    (kept,) = client(runs).search_datasets(experiment_ids=[experiment])  # of this run, delivered twice, and of others
    records, _ = client(runs)._tracking_client.store._load_dataset_records(kept.dataset_id)
    answers = {record.inputs["question"]: record.expectations["golden_answers"] for record in records}
    assert (len(records), answers) == (2, {"Where?": ["Oslo", "Christiania"], "Who?": ["Ada"]})


def test_a_store_that_was_away_gets_versions_with_their_figures_by_catching_up(runs: Path) -> None:
    path = runs / "versions-late"
    with RunFolder(path) as folder, MlflowRun(path, uri=DEAD, experiment="late") as run:
        write_run(folder, run)
    assert run.run_id is None
    assert catch_up(path, f"sqlite:///{runs / 'mlflow.db'}") == 0
    target = Target.read(path)
    assert target is not None
    assert target.run_id is not None
    check(runs, target.run_id, "versions-late")


def test_a_server_that_is_too_old_for_models_is_told_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with old_server() as (uri, metrics):
        run = MlflowRun(tmp_path / "a", uri=uri, experiment="old", first_pause_s=0.01)
        run.log_metrics(1, {"eval/f1": 0.5})
        run.log_version(1, ["eval/f1"], {"checkpoint": "kept"})
        run.log_metrics(2, {"eval/f1": 0.75})
        assert run.close(timeout_s=60) == 0
    assert [(metric["step"], metric["value"]) for metric in metrics] == [(1, 0.5), (2, 0.75)]
    assert f"(version): MLflow at {uri} is too old for it" in caplog.text


def test_an_experiment_says_what_is_where_unless_somebody_wrote_there(runs: Path) -> None:
    def note(experiment: str) -> str:
        return str(client(runs).get_experiment_by_name(experiment).tags["mlflow.note.content"])

    for name, tags in {"made-before": {}, "described": {"mlflow.note.content": "Ours."}}.items():
        client(runs).create_experiment(name, (runs / "mlartifacts").as_uri(), tags=tags)
    for name in ("new-one", "made-before", "described"):
        MlflowRun(runs / f"in-{name}", experiment=name).close()
    assert note("new-one") == note("made-before") == EXPERIMENT_NOTE
    assert note("described") == "Ours."
